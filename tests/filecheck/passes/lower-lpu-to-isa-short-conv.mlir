// RUN: hyperdex-opt %s -p 'lower-lpu-to-isa' | filecheck %s
// Short convolutions: a slot for each; nothing to keep for one tap; in a layer's function from the layer's base on.

builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 100 : i64, "lpu.matrix_type" = "f16"} {
func.func @main(%ids: tensor<?xi64>, %pos: tensor<?xi64>) -> tensor<?x128xf32> {
  %e = lpu.weight "embed.weight" : tensor<128x64xf16>
  %x = lpu.embedding %e at %ids : (tensor<128x64xf16>, tensor<?xi64>) -> tensor<?x64xf32>
  %w = lpu.weight "taps" : tensor<64x1x3xf32>
  %w1 = lpu.weight "one_tap" : tensor<64x1x1xf32>
  %b = lpu.weight "bias" : tensor<64xf32>
  %y = lpu.short_conv %x by %w bias %b : tensor<64xf32> slot 0 : tensor<64x1x3xf32> -> tensor<?x64xf32>
  %z = lpu.short_conv %y by %w1 slot 1 : tensor<64x1x1xf32> -> tensor<?x64xf32>
  %h0 = lpu.layer @layer(%z) : (tensor<?x64xf32>) -> tensor<?x64xf32>
  %h1 = lpu.layer @layer(%h0) : (tensor<?x64xf32>) -> tensor<?x64xf32>
  %s = lpu.select_rows %h1 : tensor<?x64xf32>
  %l = lpu.linear %s by %e : tensor<?x64xf32>, tensor<128x64xf16> -> tensor<?x128xf32>
  func.return %l : tensor<?x128xf32>
}
func.func @layer(%h: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %w = lpu.weight "layers.*.taps" : tensor<64x1x3xf32>
  %y = lpu.short_conv %h by %w slot 0 : tensor<64x1x3xf32> -> tensor<?x64xf32>
  %o = lpu.add %h, %y : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return %o : tensor<?x64xf32>
}
}

// CHECK:      builtin.module attributes {lpu.target = "u55c", lpu.max_length = 100 : i64, lpu.matrix_type = "f16"} {
// CHECK-NEXT:   func.func @main() {
// CHECK-NEXT:     isa.set dst=param_base value=22528
// CHECK-NEXT:     isa.set dst=kv_base value=28672
// CHECK-NEXT:     %x = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.embed dst=%x table=hbm[0] index=token ids=hbm[32768] limit=128 columns=64 type=f16 rows=tokens
// CHECK-NEXT:     %y = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.short_conv dst=%y src=%x state=hbm[26624] taps=hbm[16384] bias=hbm[18432] history=2 columns=64 rows=tokens
// CHECK-NEXT:     isa.store_state state=hbm[26624] src=%x history=2 columns=64 rows=tokens
// CHECK-NEXT:     %z = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.short_conv dst=%z src=%y state=hbm[28672] taps=hbm[20480] history=0 columns=64 rows=tokens
// CHECK-NEXT:     isa.call @layer(%z) : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.add dst=param_base a=param_base b=zero value=2048
// CHECK-NEXT:     isa.add dst=kv_base a=kv_base b=zero value=2048
// CHECK-NEXT:     isa.call @layer(%z) : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.add dst=param_base a=param_base b=zero value=2048
// CHECK-NEXT:     isa.add dst=kv_base a=kv_base b=zero value=2048
// CHECK-NEXT:     %s = isa.buffer : !isa.lmu<head x 64>
// CHECK-NEXT:     isa.select_rows dst=%s src=%z first=first_row columns=64 rows=head_rows
// CHECK-NEXT:     %l = isa.buffer : !isa.lmu<head x 128>
// CHECK-NEXT:     isa.matmul dst=%l src=%s weight=hbm[0] k=64 n=128 type=f16 rows=head_rows
// CHECK-NEXT:     isa.store dst=hbm[36864] pitch=512 src=%l columns=128 rows=head_rows
// CHECK-NEXT:     isa.sample dst=next_token src=%l columns=128 rows=head_rows settings=hbm[34816]
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @layer(%h: !isa.lmu<tokens x 64>) {
// CHECK-NEXT:     %y = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.short_conv dst=%y src=%h state=hbm[kv_base] taps=hbm[param_base] history=2 columns=64 rows=tokens
// CHECK-NEXT:     isa.store_state state=hbm[kv_base] src=%h history=2 columns=64 rows=tokens
// CHECK-NEXT:     isa.binary function=add dst=%h a=%h b=%y columns=64 rows=tokens
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
