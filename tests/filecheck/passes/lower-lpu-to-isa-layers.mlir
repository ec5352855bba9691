// RUN: hyperdex-opt %s -p lower-lpu-to-isa --split-input-file | filecheck %s
// Layers work in place: on a copy when the value is needed again, and through a buffer where an operation reads across.

builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 100 : i64, "lpu.matrix_type" = "f16"} {
func.func @main(%ids: tensor<?xi64>, %pos: tensor<?xi64>) -> tensor<?x128xf32> {
  %e = lpu.weight "embed.weight" : tensor<128x64xf16>
  %x = lpu.embedding %e at %ids : (tensor<128x64xf16>, tensor<?xi64>) -> tensor<?x64xf32> loc("model.embed")
  
  %z = lpu.repeat 3 (%h = %x : tensor<?x64xf32>) {
    %y = lpu.layer @layer(%h, %x) : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
    %v = lpu.layer @norm(%y) : (tensor<?x64xf32>) -> tensor<?x64xf32>
    lpu.yield %v : tensor<?x64xf32>
}
  %s = lpu.select_rows %z : tensor<?x64xf32>
  %l = lpu.linear %s by %e : tensor<?x64xf32>, tensor<128x64xf16> -> tensor<?x128xf32>
  func.return %l : tensor<?x128xf32>
}
func.func @layer(%h: tensor<?x64xf32>, %other: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %w = lpu.weight "layers.*.w" : tensor<64x64xf16>
  %n = lpu.weight "shared" : tensor<64xf32>
  %y = lpu.linear %other by %w times %h plus %h : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32> loc("layers.*.w")
  func.return %y : tensor<?x64xf32>
}
func.func @norm(%h: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %y = lpu.rms_norm %h epsilon 1.000000e-05 : tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
}

// CHECK:      builtin.module attributes {lpu.target = "u55c", lpu.max_length = 100 : i64, lpu.matrix_type = "f16"} {
// CHECK-NEXT:   func.func @main() {
// CHECK-NEXT:     isa.set dst=param_base value=16384
// CHECK-NEXT:     isa.set dst=kv_base value=40960
// CHECK-NEXT:     %x = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.embed dst=%x table=hbm[0] index=token ids=hbm[40960] limit=128 columns=64 type=f16 rows=tokens
// CHECK-NEXT:     %x_1 = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.unary function=copy dst=%x_1 a=%x columns=64 rows=tokens
// CHECK-NEXT:     isa.repeat 3 {
// CHECK-NEXT:       isa.call @layer(%x_1, %x) : !isa.lmu<tokens x 64>, !isa.lmu<tokens x 64>
// CHECK-NEXT:       isa.add dst=param_base a=param_base b=zero value=8192
// CHECK-NEXT:       isa.call @norm(%x_1) : !isa.lmu<tokens x 64>
// CHECK-NEXT:     }
// CHECK-NEXT:     %s = isa.buffer : !isa.lmu<head x 64>
// CHECK-NEXT:     isa.select_rows dst=%s src=%x_1 first=first_row columns=64 rows=head_rows
// CHECK-NEXT:     %l = isa.buffer : !isa.lmu<head x 128>
// CHECK-NEXT:     isa.matmul dst=%l src=%s weight=hbm[0] k=64 n=128 type=f16 rows=head_rows
// CHECK-NEXT:     isa.store dst=hbm[45056] pitch=512 src=%l columns=128 rows=head_rows
// CHECK-NEXT:     isa.sample dst=next_token src=%l columns=128 rows=head_rows settings=hbm[43008]
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @layer(%h: !isa.lmu<tokens x 64>, %other: !isa.lmu<tokens x 64>) {
// CHECK-NEXT:     isa.matmul dst=%h src=%other weight=hbm[param_base] k=64 n=64 type=f16 times=%h plus=%h rows=tokens
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @norm(%h: !isa.lmu<tokens x 64>) {
// CHECK-NEXT:     %y = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.rms_norm dst=%y a=%h epsilon=1.0e-05 columns=64 rows=tokens
// CHECK-NEXT:     isa.unary function=copy dst=%h a=%y columns=64 rows=tokens
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT: }
