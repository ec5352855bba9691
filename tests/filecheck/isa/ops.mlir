// RUN: HYPERDEX_ROUNDTRIP
// RUN: HYPERDEX_GENERIC_ROUNDTRIP

// CHECK-LABEL: func.func @main()
// CHECK-GENERIC: sym_name = "main"
func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 576>
  // CHECK-NEXT: %h = isa.buffer : !isa.lmu<tokens x 576>
  // CHECK-GENERIC-NEXT: %h = "isa.buffer"() : () -> !isa.lmu<tokens x 576>
  %l = isa.buffer : !isa.lmu<head x 49152 at 4096>
  // CHECK-NEXT: %l = isa.buffer : !isa.lmu<head x 49152 at 4096>
  // CHECK-GENERIC-NEXT: %l = "isa.buffer"() : () -> !isa.lmu<head x 49152 at 4096>
  %w = isa.buffer : !isa.lmu<1 x 64>
  // CHECK-NEXT: %w = isa.buffer : !isa.lmu<1 x 64>
  // CHECK-GENERIC-NEXT: %w = "isa.buffer"() : () -> !isa.lmu<1 x 64>

  isa.set dst=param_base value=-4096
  // CHECK-NEXT: isa.set dst=param_base value=-4096
  // CHECK-GENERIC-NEXT: "isa.set"() <{dst = 5 : i64, value = -4096 : i64}> : () -> ()
  isa.add dst=r9 a=r9 b=r1 value=0
  // CHECK-NEXT: isa.add dst=r9 a=r9 b=tokens{{$}}
  // CHECK-GENERIC-NEXT: "isa.add"() <{dst = 9 : i64, a = 9 : i64, b = 1 : i64}> : () -> ()
  isa.embed dst=%h table=hbm[0] index=token ids=hbm[1048576] offset=-2 limit=49152 columns=576 type=f16 rows=tokens
  // CHECK-NEXT: isa.embed dst=%h table=hbm[0] index=token ids=hbm[1048576] offset=-2 limit=49152 columns=576 type=f16 rows=tokens
  // CHECK-GENERIC-NEXT: "isa.embed"(%h) <{table_offset = 0 : i64, index = "token", ids_offset = 1048576 : i64, offset = -2 : i64, limit = 49152 : i64, columns = 576 : i64, type = "f16", rows = 1 : i64}>
  isa.gather dst=%h table=hbm[64 + param_base] index=position ids=hbm[0] limit=2048 columns=64 rows=tokens
  // CHECK-NEXT: isa.gather dst=%h table=hbm[64 + param_base] index=position ids=hbm[0] limit=2048 columns=64 rows=tokens
  // CHECK-GENERIC-NEXT: "isa.gather"(%h) <{table_offset = 64 : i64, table_register = 5 : i64, index = "position",
  isa.load dst=%w src=hbm[kv_base] columns=64
  // CHECK-NEXT: isa.load dst=%w src=hbm[kv_base] columns=64
  // CHECK-GENERIC-NEXT: "isa.load"(%w) <{src_offset = 0 : i64, src_register = 6 : i64, columns = 64 : i64}>
  isa.store dst=hbm[128] pitch=196608 src=%l columns=49152 rows=head_rows
  // CHECK-NEXT: isa.store dst=hbm[128] pitch=196608 src=%l columns=49152 rows=head_rows
  // CHECK-GENERIC-NEXT: "isa.store"(%l)
  isa.store_key cache=hbm[64 + r6] pitch=8192 src=%h[64 + r10] heads=3 size=64 limit=2048 type=bf16 rows=tokens
  // CHECK-NEXT: isa.store_key cache=hbm[64 + kv_base] pitch=8192 src=%h[64 + r10] heads=3 size=64 limit=2048 type=bf16 rows=tokens
  // CHECK-GENERIC-NEXT: "isa.store_key"(%h) <{cache_offset = 64 : i64, cache_register = 6 : i64, pitch = 8192 : i64, src_offset = 64 : i64, src_register = 10 : i64,
  isa.store_value cache=hbm[0] pitch=8192 src=%h heads=3 size=64 limit=2048 type=f16 rows=tokens
  // CHECK-NEXT: isa.store_value cache=hbm[0] pitch=8192 src=%h heads=3 size=64 limit=2048 type=f16 rows=tokens
  // CHECK-GENERIC-NEXT: "isa.store_value"(%h)

  isa.matmul dst=%h src=%h weight=hbm[param_base] k=576 n=576 type=f16 rows=tokens
  // CHECK-NEXT: isa.matmul dst=%h src=%h weight=hbm[param_base] k=576 n=576 type=f16 rows=tokens
  // CHECK-GENERIC-NEXT: "isa.matmul"(%h, %h) <{weight_offset = 0 : i64, weight_register = 5 : i64, k = 576 : i64, n = 576 : i64, type = "f16", rows = 1 : i64, operandSegmentSizes = array<i32: 1, 1, 0, 0>}>
  isa.matmul dst=%h src=%h weight=hbm[0] k=576 n=64 type=f16 bias=hbm[0] scale=0.088388346 softcap=30.0 activation=silu times=%w plus=%h[512] rows=tokens
  // CHECK-NEXT: isa.matmul dst=%h src=%h weight=hbm[0] k=576 n=64 type=f16 bias=hbm[0] scale=0.088388346 softcap=30.0 activation=silu times=%w plus=%h[512] rows=tokens
  // CHECK-GENERIC-NEXT: "isa.matmul"(%h, %h, %w, %h) <{{.*}}bias_offset = 0 : i64, scale = 0.0883883461 : f32, softcap = 3.000000e+01 : f32, activation = "silu", plus_offset = 512 : i64, {{.*}}operandSegmentSizes = array<i32: 1, 1, 1, 1>}>
  isa.matmul dst=%h src=%h weight=hbm[0] k=576 n=64 type=f16 bias=hbm[0] activation=silu plus=%h[512] rows=tokens gated=1
  // CHECK-NEXT: isa.matmul dst=%h src=%h weight=hbm[0] k=576 n=64 type=f16 bias=hbm[0] activation=silu plus=%h[512] rows=tokens gated=1
  // CHECK-GENERIC-NEXT: "isa.matmul"(%h, %h, %h) <{{.*}}rows = 1 : i64, gated = 1 : i64, operandSegmentSizes = array<i32: 1, 1, 0, 1>}>
  isa.scores dst=%h query=%h[r9] cache=hbm[64 + r11] size=64 scale=0.125 type=f16 rows=tokens
  // CHECK-NEXT: isa.scores dst=%h query=%h[r9] cache=hbm[64 + r11] size=64 scale=0.125 type=f16 rows=tokens
  // CHECK-GENERIC-NEXT: "isa.scores"(%h, %h) <{query_register = 9 : i64,
  isa.scores dst=%h query=%h cache=hbm[64] size=64 scale=0.125 type=bf16 rows=tokens slope=hbm[4 + r29] bf16_bias=1
  // CHECK-NEXT: isa.scores dst=%h query=%h cache=hbm[64] size=64 scale=0.125 type=bf16 rows=tokens slope=hbm[4 + r29] bf16_bias=1
  // CHECK-GENERIC-NEXT: "isa.scores"(%h, %h) <{{.*}}slope_offset = 4 : i64, slope_register = 29 : i64, bf16_bias = 1 : i64
  isa.softmax dst=%h src=%h rows=tokens sink=hbm[r30]
  // CHECK-NEXT: isa.softmax dst=%h src=%h rows=tokens sink=hbm[r30]
  // CHECK-GENERIC-NEXT: "isa.softmax"(%h, %h) <{rows = 1 : i64, sink_offset = 0 : i64, sink_register = 30 : i64}>
  isa.softmax dst=%h src=%h window=512 rows=tokens
  // CHECK-NEXT: isa.softmax dst=%h src=%h window=512 rows=tokens
  // CHECK-GENERIC-NEXT: "isa.softmax"(%h, %h) <{window = 512 : i64, rows = 1 : i64}>
  isa.values dst=%h[r9] src=%h cache=hbm[64 + r11] size=64 limit=2048 type=f16 rows=tokens
  // CHECK-NEXT: isa.values dst=%h[r9] src=%h cache=hbm[64 + r11] size=64 limit=2048 type=f16 rows=tokens
  // CHECK-GENERIC-NEXT: "isa.values"(%h, %h)

  isa.unary function=gelu_tanh dst=%h[group 64] a=%h[64 + r9, group 64, column 2, row 0] groups=2 columns=64 rows=tokens
  // CHECK-NEXT: isa.unary function=gelu_tanh dst=%h[group 64] a=%h[64 + r9, group 64, column 2, row 0] groups=2 columns=64 rows=tokens
  // CHECK-GENERIC-NEXT: "isa.unary"(%h, %h) <{function = "gelu_tanh", dst_group_stride = 64 : i64, a_broadcast_rows, a_offset = 64 : i64, a_register = 9 : i64, a_group_stride = 64 : i64, a_column_stride = 2 : i64, groups = 2 : i64,
  isa.binary function=mul dst=%h a=%h b=%w[column 0] columns=576 rows=tokens
  // CHECK-NEXT: isa.binary function=mul dst=%h a=%h b=%w[column 0] columns=576 rows=tokens
  // CHECK-GENERIC-NEXT: "isa.binary"(%h, %h, %w)
  isa.binary_scalar function=sub dst=%h a=%h b=-1.0e-06 reversed=1 columns=576 rows=tokens
  // CHECK-NEXT: isa.binary_scalar function=sub dst=%h a=%h b=-1.0e-06 reversed=1 columns=576 rows=tokens
  // CHECK-GENERIC-NEXT: b = -1.000000e-06 : f32, reversed = 1 : i64
  isa.binary_scalar function=max dst=%h a=%h b=0xff800000 columns=576 rows=tokens
  // CHECK-NEXT: isa.binary_scalar function=max dst=%h a=%h b=0xff800000 columns=576 rows=tokens
  // CHECK-GENERIC-NEXT: b = 0xff800000 : f32
  isa.binary_scalar function=max dst=%h a=%h b=-0.0 columns=576 rows=tokens
  // CHECK-NEXT: isa.binary_scalar function=max dst=%h a=%h b=-0.0 columns=576 rows=tokens
  // CHECK-GENERIC-NEXT: b = -0.000000e+00 : f32
  isa.reduce function=mean dst=%w a=%h groups=9 columns=64 rows=tokens
  // CHECK-NEXT: isa.reduce function=mean dst=%w a=%h groups=9 columns=64 rows=tokens
  // CHECK-GENERIC-NEXT: "isa.reduce"(%w, %h)
  isa.rms_norm dst=%h a=%h epsilon=1.0e-05 columns=576 rows=tokens
  // CHECK-NEXT: isa.rms_norm dst=%h a=%h epsilon=1.0e-05 columns=576 rows=tokens
  // CHECK-GENERIC-NEXT: "isa.rms_norm"(%h, %h) <{epsilon = 1.000000e-05 : f32, columns = 576 : i64, rows = 1 : i64}>
  isa.layer_norm dst=%h a=%h weight=hbm[0] bias=hbm[param_base] epsilon=0.1 columns=576 rows=tokens
  // CHECK-NEXT: isa.layer_norm dst=%h a=%h weight=hbm[0] bias=hbm[param_base] epsilon=0.1 columns=576 rows=tokens
  // CHECK-GENERIC-NEXT: "isa.layer_norm"(%h, %h) <{weight_offset = 0 : i64, bias_offset = 0 : i64, bias_register = 5 : i64,
  isa.rotary dst=%h a=%h cos=%w sin=%w style=half turned=64 groups=9 columns=64 rows=tokens
  // CHECK-NEXT: isa.rotary dst=%h a=%h cos=%w sin=%w style=half turned=64 groups=9 columns=64 rows=tokens
  // CHECK-GENERIC-NEXT: "isa.rotary"(%h, %h, %w, %w)
  isa.select_rows dst=%l src=%h first=first_row columns=576 rows=head_rows
  // CHECK-NEXT: isa.select_rows dst=%l src=%h first=first_row columns=576 rows=head_rows
  // CHECK-GENERIC-NEXT: "isa.select_rows"(%l, %h) <{first = 3 : i64,
  isa.sample dst=next_token src=%l columns=49152 rows=head_rows settings=hbm[4096] attributes {note = "kept"}
  // CHECK-NEXT: isa.sample dst=next_token src=%l columns=49152 rows=head_rows settings=hbm[4096] attributes {note = "kept"}
  // CHECK-GENERIC-NEXT: "isa.sample"(%l) <{dst = 7 : i64, columns = 49152 : i64, rows = 4 : i64, settings_offset = 4096 : i64}> {note = "kept"}

  isa.repeat 30 {
    isa.call @layer(%h, %w) : !isa.lmu<tokens x 576>, !isa.lmu<1 x 64>
    isa.call @nothing()
  }
  // CHECK-NEXT: isa.repeat 30 {
  // CHECK-NEXT:   isa.call @layer(%h, %w) : !isa.lmu<tokens x 576>, !isa.lmu<1 x 64>
  // CHECK-NEXT:   isa.call @nothing()
  // CHECK-NEXT: }
  // CHECK-GENERIC-NEXT: "isa.repeat"() <{trip_count = 30 : i64}> ({
  // CHECK-GENERIC-NEXT:   "isa.call"(%h, %w) <{callee = @layer}> : (!isa.lmu<tokens x 576>, !isa.lmu<1 x 64>) -> ()
  // CHECK-GENERIC-NEXT:   "isa.call"() <{callee = @nothing}> : () -> ()
  // CHECK-GENERIC-NEXT: }) : () -> ()
  isa.repeat 2 attributes {note} {
  }
  // CHECK-NEXT: isa.repeat 2 attributes {note} {
  // CHECK-NEXT: }
  // CHECK-GENERIC-NEXT: "isa.repeat"() <{trip_count = 2 : i64}> ({
  isa.lookup dst=r14 table=hbm[4096] index=r13 limit=26
  isa.skip_unless r14 = -1 {
    isa.call @nothing()
  }
  // CHECK: isa.lookup dst=r14 table=hbm[4096] index=r13 limit=26
  // CHECK-NEXT: isa.skip_unless r14 = -1 {
  // CHECK-NEXT:   isa.call @nothing()
  // CHECK-NEXT: }
  // CHECK-GENERIC: "isa.skip_unless"() <{a = 14 : i64, value = -1 : i64}> ({
  // CHECK-GENERIC-NEXT:   "isa.call"() <{callee = @nothing}> : () -> ()
  // CHECK-GENERIC-NEXT: }) : () -> ()

  isa.multiply dst=r16 a=r31 value=-144
  // CHECK-NEXT: isa.multiply dst=r16 a=device value=-144
  // CHECK-GENERIC-NEXT: "isa.multiply"() <{dst = 16 : i64, a = 31 : i64, value = -144 : i64}> : () -> ()
  isa.select_columns dst=%h src=%h index=device columns=144 limit=570 rows=tokens
  // CHECK-NEXT: isa.select_columns dst=%h src=%h index=device columns=144 limit=570 rows=tokens
  // CHECK-GENERIC-NEXT: "isa.select_columns"(%h, %h) <{index = 31 : i64, columns = 144 : i64, limit = 570 : i64, rows = 1 : i64}>
  isa.matmul dst=%h[r16] src=%h weight=hbm[0] k=576 n=64 type=f16 rows=tokens gated=1 prefetch=9 gate_distance=144
  // CHECK-NEXT: isa.matmul dst=%h[r16] src=%h weight=hbm[0] k=576 n=64 type=f16 rows=tokens gated=1 prefetch=9 gate_distance=144
  // CHECK-GENERIC-NEXT: gated = 1 : i64, prefetch = 9 : i64, gate_distance = 144 : i64
  isa.top_k dst=%h src=%h columns=576 k=8 groups=8 top_groups=4 rows=tokens
  // CHECK-NEXT: isa.top_k dst=%h src=%h columns=576 k=8 groups=8 top_groups=4 rows=tokens
  // CHECK-GENERIC-NEXT: "isa.top_k"(%h, %h) <{columns = 576 : i64, k = 8 : i64, groups = 8 : i64, top_groups = 4 : i64, rows = 1 : i64}>
  isa.take_columns dst=%h src=%h index=%h[8] columns=8 limit=576 rows=tokens
  // CHECK-NEXT: isa.take_columns dst=%h src=%h index=%h[8] columns=8 limit=576 rows=tokens
  // CHECK-GENERIC-NEXT: "isa.take_columns"(%h, %h, %h) <{index_offset = 8 : i64, columns = 8 : i64, limit = 576 : i64, rows = 1 : i64}>
  isa.repeat_rows head_rows {
    isa.fetch dst=r11 src=%h[r15] limit=9
  }
  // CHECK-NEXT: isa.repeat_rows head_rows {
  // CHECK-NEXT:   isa.fetch dst=r11 src=%h[r15] limit=9
  // CHECK-NEXT: }
  // CHECK-GENERIC-NEXT: "isa.repeat_rows"() <{rows = 4 : i64}> ({
  // CHECK-GENERIC-NEXT:   "isa.fetch"(%h) <{dst = 11 : i64, src_register = 15 : i64, limit = 9 : i64}> : (!isa.lmu<tokens x 576>) -> ()
  // CHECK-GENERIC-NEXT: }) : () -> ()
  isa.send src=%h hop=0 parts=4 pitch=144 columns=144 rows=tokens
  // CHECK-NEXT: isa.send src=%h hop=0 parts=4 pitch=144 columns=144 rows=tokens
  // CHECK-GENERIC-NEXT: "isa.send"(%h) <{hop = 0 : i64, parts = 4 : i64, pitch = 144 : i64, columns = 144 : i64, rows = 1 : i64}>
  isa.receive dst=%h hop=1 parts=4 pitch=144 first=64 columns=80 rows=tokens
  // CHECK-NEXT: isa.receive dst=%h hop=1 parts=4 pitch=144 first=64 columns=80 rows=tokens
  // CHECK-GENERIC-NEXT: "isa.receive"(%h) <{hop = 1 : i64, parts = 4 : i64, pitch = 144 : i64, first = 64 : i64, columns = 80 : i64, rows = 1 : i64}>
  func.return
}

func.func @layer(%h: !isa.lmu<tokens x 576>, %w: !isa.lmu<1 x 64>) {
  func.return
}

func.func @nothing() {
  func.return
}
