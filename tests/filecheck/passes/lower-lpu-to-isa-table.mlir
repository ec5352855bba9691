// RUN: hyperdex-opt %s -p lower-lpu-to-isa --split-input-file | filecheck %s
// An order of layers that is a table: looked up in a repeat, each call under a skip. A number of each layer is loaded.

builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 100 : i64, "lpu.matrix_type" = "f16"} {
func.func @main(%ids: tensor<?xi64>, %pos: tensor<?xi64>) -> tensor<?x128xf32> {
  %e = lpu.weight "embed.weight" : tensor<128x64xf16>
  %x = lpu.embedding %e at %ids : (tensor<128x64xf16>, tensor<?xi64>) -> tensor<?x64xf32>
  %z = lpu.layers "layers.order" [0, 1, 1, 0] @scaled, @halved (%x : tensor<?x64xf32>)
  %s = lpu.select_rows %z : tensor<?x64xf32>
  %l = lpu.linear %s by %e : tensor<?x64xf32>, tensor<128x64xf16> -> tensor<?x128xf32>
  func.return %l : tensor<?x128xf32>
}
func.func @scaled(%h: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %c = lpu.layer_constant "layers.*.constant0" [2.0, 0.0, 0.0, 3.0] : tensor<f32>
  %y = lpu.mul %h, %c : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
func.func @halved(%h: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %c = lpu.constant 5.0e-01 : tensor<f32>
  %y = lpu.mul %h, %c : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
}

// CHECK:      builtin.module attributes {lpu.target = "u55c", lpu.max_length = 100 : i64, lpu.matrix_type = "f16"} {
// CHECK-NEXT:   func.func @main() {
// CHECK-NEXT:     isa.set dst=param_base value=18432
// CHECK-NEXT:     isa.set dst=kv_base value=22528
// CHECK-NEXT:     %x = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.embed dst=%x table=hbm[0] index=token ids=hbm[22528] limit=128 columns=64 type=f16 rows=tokens
// CHECK-NEXT:     isa.set dst=r13 value=0
// CHECK-NEXT:     isa.repeat 4 {
// CHECK-NEXT:       isa.lookup dst=r14 table=hbm[16384] index=r13 limit=4
// CHECK-NEXT:       isa.add dst=r13 a=r13 b=zero value=1
// CHECK-NEXT:       isa.skip_unless r14 = 0 {
// CHECK-NEXT:         isa.call @scaled(%x) : !isa.lmu<tokens x 64>
// CHECK-NEXT:         isa.add dst=param_base a=param_base b=zero value=2048
// CHECK-NEXT:       }
// CHECK-NEXT:       isa.skip_unless r14 = 1 {
// CHECK-NEXT:         isa.call @halved(%x) : !isa.lmu<tokens x 64>
// CHECK-NEXT:       }
// CHECK-NEXT:     }
// CHECK-NEXT:     %s = isa.buffer : !isa.lmu<head x 64>
// CHECK-NEXT:     isa.select_rows dst=%s src=%x first=first_row columns=64 rows=head_rows
// CHECK-NEXT:     %l = isa.buffer : !isa.lmu<head x 128>
// CHECK-NEXT:     isa.matmul dst=%l src=%s weight=hbm[0] k=64 n=128 type=f16 rows=head_rows
// CHECK-NEXT:     isa.store dst=hbm[26624] pitch=512 src=%l columns=128 rows=head_rows
// CHECK-NEXT:     isa.sample dst=next_token src=%l columns=128 rows=head_rows settings=hbm[24576]
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @scaled(%h: !isa.lmu<tokens x 64>) {
// CHECK-NEXT:     %c = isa.buffer : !isa.lmu<1 x 1>
// CHECK-NEXT:     isa.load dst=%c src=hbm[param_base] columns=1
// CHECK-NEXT:     isa.binary function=mul dst=%h a=%h b=%c[column 0] columns=64 rows=tokens
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @halved(%h: !isa.lmu<tokens x 64>) {
// CHECK-NEXT:     isa.binary_scalar function=mul dst=%h a=%h b=0.5 columns=64 rows=tokens
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT: }
