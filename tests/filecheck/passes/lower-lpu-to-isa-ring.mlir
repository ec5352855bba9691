// RUN: hyperdex-opt %s -p lower-lpu-to-isa --split-input-file | filecheck %s
// RUN: hyperdex-opt %s -p 'lower-lpu-to-isa{gather-chunks=1}' --split-input-file | filecheck %s --check-prefix=WHOLE
// What a matrix makes goes around the ring in chunks of whole groups of columns, of a gated one too; what is narrower,
// or made otherwise, in one. A layer leaves its result in the hidden buffer unless a chunk would be written over what
// the next one reads. The KV head of a query head comes from a table.

builtin.module attributes {lpu.matrix_type = "f16", lpu.max_length = 40 : i64, lpu.target = "u55c", lpu.grid = #lpu.grid<2>} {
func.func @main(%t: tensor<?xi64>, %p: tensor<?xi64>) -> tensor<?x30xf32> {
  %e = lpu.weight "embed" shards [#lpu.sharding<1, 35 of 70 at [0, 35]>] : tensor<30x35xf16>
  %c = lpu.embedding %e at %t : (tensor<30x35xf16>, tensor<?xi64>) -> tensor<?x35xf32>
  %h = lpu.all_gather %c over 2 : (tensor<?x35xf32>) -> tensor<?x70xf32>
  %w = lpu.weight "gate", "up" shards [#lpu.sharding<0, 50 of 99 at [0, 50]>, #lpu.sharding<0, 50 of 99 at [0, 50]>] : tensor<100x70xf16>
  %b = lpu.weight "gate_bias", "up_bias" shards [#lpu.sharding<0, 50 of 99 at [0, 50]>, #lpu.sharding<0, 50 of 99 at [0, 50]>] : tensor<100xf32>
  %x = lpu.linear %h by %w gated bias %b : tensor<100xf32> then relu : tensor<?x70xf32>, tensor<100x70xf16> -> tensor<?x50xf32>
  %g = lpu.all_gather %x over 2 : (tensor<?x50xf32>) -> tensor<?x99xf32>
  %d = lpu.weight "down" shards [#lpu.sharding<0, 35 of 70 at [0, 35]>] : tensor<35x99xf16>
  %r = lpu.select_columns %h : (tensor<?x70xf32>) -> tensor<?x35xf32>
  %y = lpu.linear %g by %d plus %r : tensor<?x99xf32>, tensor<35x99xf16> -> tensor<?x35xf32>
  %a = lpu.all_gather %y over 2 : (tensor<?x35xf32>) -> tensor<?x70xf32>
  %s = lpu.select_rows %a : tensor<?x70xf32>
  %o = lpu.weight "head" shards [#lpu.sharding<0, 15 of 30 at [0, 15]>] : tensor<15x70xf16>
  %l = lpu.linear %s by %o : tensor<?x70xf32>, tensor<15x70xf16> -> tensor<?x15xf32>
  %z = lpu.all_gather %l over 2 : (tensor<?x15xf32>) -> tensor<?x30xf32>
  func.return %z : tensor<?x30xf32>
}
}
// -----
builtin.module attributes {lpu.matrix_type = "f16", lpu.max_length = 40 : i64, lpu.target = "u55c", lpu.grid = #lpu.grid<2>} {
func.func @main(%t: tensor<?xi64>, %p: tensor<?xi64>) -> tensor<?x64xf32> {
  %e = lpu.weight "embed" : tensor<64x64xf16>
  %h = lpu.embedding %e at %t : (tensor<64x64xf16>, tensor<?xi64>) -> tensor<?x64xf32>
  %i = lpu.layer @in_place(%h) : (tensor<?x64xf32>) -> tensor<?x64xf32>
  %j = lpu.layer @copied(%i) : (tensor<?x64xf32>) -> tensor<?x64xf32>
  %s = lpu.select_rows %j : tensor<?x64xf32>
  func.return %s : tensor<?x64xf32>
}
func.func @in_place(%h: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %n = lpu.neg %h : tensor<?x64xf32>
  %w = lpu.weight "layers.*.down" shards [#lpu.sharding<0, 32 of 64 at [0, 32]>] : tensor<32x64xf16>
  %r = lpu.select_columns %h : (tensor<?x64xf32>) -> tensor<?x32xf32>
  %y = lpu.linear %n by %w plus %r : tensor<?x64xf32>, tensor<32x64xf16> -> tensor<?x32xf32>
  %a = lpu.all_gather %y over 2 : (tensor<?x32xf32>) -> tensor<?x64xf32>
  func.return %a : tensor<?x64xf32>
}
func.func @copied(%h: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %w = lpu.weight "layers.*.down" shards [#lpu.sharding<0, 32 of 64 at [0, 32]>] : tensor<32x64xf16>
  %y = lpu.linear %h by %w : tensor<?x64xf32>, tensor<32x64xf16> -> tensor<?x32xf32>
  %a = lpu.all_gather %y over 2 : (tensor<?x32xf32>) -> tensor<?x64xf32>
  func.return %a : tensor<?x64xf32>
}
}
// -----
builtin.module attributes {lpu.matrix_type = "f16", lpu.max_length = 40 : i64, lpu.target = "u55c", lpu.grid = #lpu.grid<2>} {
func.func @main(%t: tensor<?xi64>, %p: tensor<?xi64>) -> tensor<?x48xf32> {
  %e = lpu.weight "embed" : tensor<64x32xf16>
  %h = lpu.embedding %e at %t : (tensor<64x32xf16>, tensor<?xi64>) -> tensor<?x32xf32>
  %q = lpu.reshape %h : (tensor<?x32xf32>) -> tensor<?x2x16xf32>
  %a = lpu.attention %q, %q, %q slot 0 scale 2.500000e-01 kv_heads "kv_heads" [0, 0, 1, 0] : (tensor<?x2x16xf32>, tensor<?x2x16xf32>, tensor<?x2x16xf32>) -> tensor<?x2x16xf32>
  %o = lpu.reshape %a : (tensor<?x2x16xf32>) -> tensor<?x32xf32>
  %g = lpu.all_gather %o over 2 : (tensor<?x32xf32>) -> tensor<?x48xf32>
  %s = lpu.select_rows %g : tensor<?x48xf32>
  func.return %s : tensor<?x48xf32>
}
}

// CHECK:      builtin.module attributes {lpu.matrix_type = "f16", lpu.max_length = 40 : i64, lpu.target = "u55c", lpu.grid = #lpu.grid<2>} {
// CHECK-NEXT:   func.func @main() {
// CHECK-NEXT:     isa.multiply dst=r16 a=device value=35
// CHECK-NEXT:     isa.multiply dst=r17 a=device value=50
// CHECK-NEXT:     isa.multiply dst=r18 a=device value=15
// CHECK-NEXT:     %c = isa.buffer : !isa.lmu<tokens x 35>
// CHECK-NEXT:     isa.embed dst=%c table=hbm[0] index=token ids=hbm[51200] limit=30 columns=35 type=f16 rows=tokens
// CHECK-NEXT:     %h = isa.buffer : !isa.lmu<tokens x 70>
// CHECK-NEXT:     isa.unary function=copy dst=%h[r16] a=%c columns=35 rows=tokens
// CHECK-NEXT:     isa.send src=%h hop=0 parts=2 pitch=35 columns=35 rows=tokens
// CHECK-NEXT:     isa.receive dst=%h hop=1 parts=2 pitch=35 columns=35 rows=tokens
// CHECK-NEXT:     %g = isa.buffer : !isa.lmu<tokens x 100>
// CHECK-NEXT:     isa.matmul dst=%g[r17] src=%h weight=hbm[4096] k=70 n=32 type=f16 bias=hbm[32768] activation=relu rows=tokens gated=1 gate_distance=50
// CHECK-NEXT:     isa.send src=%g hop=0 parts=2 pitch=50 columns=32 rows=tokens
// CHECK-NEXT:     isa.receive dst=%g hop=1 parts=2 pitch=50 columns=32 rows=tokens
// CHECK-NEXT:     isa.matmul dst=%g[32 + r17] src=%h weight=hbm[12288] k=70 n=18 type=f16 bias=hbm[32896] activation=relu rows=tokens gated=1 gate_distance=50
// CHECK-NEXT:     isa.send src=%g hop=0 parts=2 pitch=50 first=32 columns=18 rows=tokens
// CHECK-NEXT:     isa.receive dst=%g hop=1 parts=2 pitch=50 first=32 columns=18 rows=tokens
// CHECK-NEXT:     %r = isa.buffer : !isa.lmu<tokens x 35>
// CHECK-NEXT:     isa.select_columns dst=%r src=%h index=device columns=35 limit=70 rows=tokens
// CHECK-NEXT:     %a = isa.buffer : !isa.lmu<tokens x 70>
// CHECK-NEXT:     isa.matmul dst=%a[r16] src=%g weight=hbm[34816] k=99 n=16 type=f16 plus=%r rows=tokens
// CHECK-NEXT:     isa.send src=%a hop=0 parts=2 pitch=35 columns=16 rows=tokens
// CHECK-NEXT:     isa.receive dst=%a hop=1 parts=2 pitch=35 columns=16 rows=tokens
// CHECK-NEXT:     isa.matmul dst=%a[16 + r16] src=%g weight=hbm[38912] k=99 n=19 type=f16 plus=%r[16] rows=tokens
// CHECK-NEXT:     isa.send src=%a hop=0 parts=2 pitch=35 first=16 columns=19 rows=tokens
// CHECK-NEXT:     isa.receive dst=%a hop=1 parts=2 pitch=35 first=16 columns=19 rows=tokens
// CHECK-NEXT:     %s = isa.buffer : !isa.lmu<head x 70>
// CHECK-NEXT:     isa.select_rows dst=%s src=%a first=first_row columns=70 rows=head_rows
// CHECK-NEXT:     %z = isa.buffer : !isa.lmu<head x 30>
// CHECK-NEXT:     isa.matmul dst=%z[r18] src=%s weight=hbm[47104] k=70 n=15 type=f16 rows=head_rows
// CHECK-NEXT:     isa.send src=%z hop=0 parts=2 pitch=15 columns=15 rows=head_rows
// CHECK-NEXT:     isa.receive dst=%z hop=1 parts=2 pitch=15 columns=15 rows=head_rows
// CHECK:          func.return
// CHECK-NEXT:   }
// CHECK-NEXT: }
// CHECK:      builtin.module attributes {lpu.matrix_type = "f16", lpu.max_length = 40 : i64, lpu.target = "u55c", lpu.grid = #lpu.grid<2>} {
// CHECK-NEXT:   func.func @main() {
// CHECK-NEXT:     isa.multiply dst=r16 a=device value=32
// CHECK-NEXT:     isa.set dst=param_base value=8192
// CHECK-NEXT:     isa.set dst=kv_base value=16384
// CHECK-NEXT:     %h = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.embed dst=%h table=hbm[0] index=token ids=hbm[16384] limit=64 columns=64 type=f16 rows=tokens
// CHECK-NEXT:     isa.call @in_place(%h) : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.add dst=param_base a=param_base b=zero value=4096
// CHECK-NEXT:     isa.call @copied(%h) : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.add dst=param_base a=param_base b=zero value=4096
// CHECK-NEXT:     %s = isa.buffer : !isa.lmu<head x 64>
// CHECK-NEXT:     isa.select_rows dst=%s src=%h first=first_row columns=64 rows=head_rows
// CHECK:          func.return
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @in_place(%h: !isa.lmu<tokens x 64>) {
// CHECK-NEXT:     %n = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.unary function=neg dst=%n a=%h columns=64 rows=tokens
// CHECK-NEXT:     %r = isa.buffer : !isa.lmu<tokens x 32>
// CHECK-NEXT:     isa.select_columns dst=%r src=%h index=device columns=32 limit=64 rows=tokens
// CHECK-NEXT:     isa.matmul dst=%h[r16] src=%n weight=hbm[param_base] k=64 n=16 type=f16 plus=%r rows=tokens
// CHECK-NEXT:     isa.send src=%h hop=0 parts=2 pitch=32 columns=16 rows=tokens
// CHECK-NEXT:     isa.receive dst=%h hop=1 parts=2 pitch=32 columns=16 rows=tokens
// CHECK-NEXT:     isa.matmul dst=%h[16 + r16] src=%n weight=hbm[2048 + param_base] k=64 n=16 type=f16 plus=%r[16] rows=tokens
// CHECK-NEXT:     isa.send src=%h hop=0 parts=2 pitch=32 first=16 columns=16 rows=tokens
// CHECK-NEXT:     isa.receive dst=%h hop=1 parts=2 pitch=32 first=16 columns=16 rows=tokens
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @copied(%h: !isa.lmu<tokens x 64>) {
// CHECK-NEXT:     %a = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.matmul dst=%a[r16] src=%h weight=hbm[param_base] k=64 n=16 type=f16 rows=tokens
// CHECK-NEXT:     isa.send src=%a hop=0 parts=2 pitch=32 columns=16 rows=tokens
// CHECK-NEXT:     isa.receive dst=%a hop=1 parts=2 pitch=32 columns=16 rows=tokens
// CHECK-NEXT:     isa.matmul dst=%a[16 + r16] src=%h weight=hbm[2048 + param_base] k=64 n=16 type=f16 rows=tokens
// CHECK-NEXT:     isa.send src=%a hop=0 parts=2 pitch=32 first=16 columns=16 rows=tokens
// CHECK-NEXT:     isa.receive dst=%a hop=1 parts=2 pitch=32 first=16 columns=16 rows=tokens
// CHECK-NEXT:     isa.unary function=copy dst=%h a=%a columns=64 rows=tokens
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT: }
// CHECK:      builtin.module attributes {lpu.matrix_type = "f16", lpu.max_length = 40 : i64, lpu.target = "u55c", lpu.grid = #lpu.grid<2>} {
// CHECK-NEXT:   func.func @main() {
// CHECK-NEXT:     isa.multiply dst=r16 a=device value=32
// CHECK-NEXT:     %h = isa.buffer : !isa.lmu<tokens x 32>
// CHECK-NEXT:     isa.embed dst=%h table=hbm[0] index=token ids=hbm[26624] limit=64 columns=32 type=f16 rows=tokens
// CHECK-NEXT:     isa.store_key cache=hbm[10240] pitch=6144 src=%h heads=2 size=16 limit=40 type=f16 rows=tokens
// CHECK-NEXT:     isa.store_value cache=hbm[22528] pitch=2048 src=%h heads=2 size=16 limit=40 type=f16 rows=tokens
// CHECK-NEXT:     %a = isa.buffer : !isa.lmu<tokens x 32>
// CHECK-NEXT:     %scores = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.set dst=r9 value=0
// CHECK-NEXT:     isa.set dst=r10 value=0
// CHECK-NEXT:     isa.multiply dst=r15 a=device value=2
// CHECK-NEXT:     isa.repeat 2 {
// CHECK-NEXT:       isa.lookup dst=r11 table=hbm[8192] index=r15 limit=4
// CHECK-NEXT:       isa.add dst=r15 a=r15 b=zero value=1
// CHECK-NEXT:       isa.multiply dst=r12 a=r11 value=2048
// CHECK-NEXT:       isa.add dst=r12 a=zero b=r12 value=10240
// CHECK-NEXT:       isa.multiply dst=r11 a=r11 value=6144
// CHECK-NEXT:       isa.add dst=r11 a=zero b=r11 value=10240
// CHECK-NEXT:       isa.scores dst=%scores query=%h[r9] cache=hbm[r11] size=16 scale=0.25 type=f16 rows=tokens
// CHECK-NEXT:       isa.softmax dst=%scores src=%scores rows=tokens
// CHECK-NEXT:       isa.values dst=%a[r10] src=%scores cache=hbm[12288 + r12] size=16 limit=40 type=f16 rows=tokens
// CHECK-NEXT:       isa.add dst=r9 a=r9 b=zero value=16
// CHECK-NEXT:       isa.add dst=r10 a=r10 b=zero value=16
// CHECK-NEXT:     }
// CHECK-NEXT:     %g = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.unary function=copy dst=%g[r16] a=%a columns=32 rows=tokens
// CHECK-NEXT:     isa.send src=%g hop=0 parts=2 pitch=32 columns=32 rows=tokens
// CHECK-NEXT:     isa.receive dst=%g hop=1 parts=2 pitch=32 columns=32 rows=tokens
// CHECK-NEXT:     %s = isa.buffer : !isa.lmu<head x 48>
// CHECK-NEXT:     isa.select_rows dst=%s src=%g first=first_row columns=48 rows=head_rows
// CHECK:          func.return
// CHECK-NEXT:   }
// CHECK-NEXT: }

// WHOLE:      isa.matmul dst=%g[r17] src=%h weight=hbm[4096] k=70 n=50 type=f16 bias=hbm[32768] activation=relu rows=tokens gated=1{{$}}
// WHOLE-NEXT: isa.send src=%g hop=0 parts=2 pitch=50 columns=50 rows=tokens
// WHOLE-NEXT: isa.receive dst=%g hop=1 parts=2 pitch=50 columns=50 rows=tokens
// WHOLE-NEXT: %r = isa.buffer
