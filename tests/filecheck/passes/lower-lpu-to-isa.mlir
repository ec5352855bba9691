// RUN: hyperdex-opt %s -p lower-lpu-to-isa --split-input-file | filecheck %s
// Main with tables, attention and head; then vector operations on views: groups, broadcasts, strides, constants.

builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 100 : i64, "lpu.matrix_type" = "f16"} {
func.func @main(%ids: tensor<?xi64>, %pos: tensor<?xi64>) -> tensor<?x128xf32> {
  %e = lpu.weight "embed.weight" : tensor<128x64xf16>
  %x = lpu.embedding %e at %ids : (tensor<128x64xf16>, tensor<?xi64>) -> tensor<?x64xf32> loc("model.embed")
  
  %pe = lpu.weight "positions" : tensor<100x64xf32>
  %p = lpu.embedding %pe at %pos {offset = 2 : i64} : (tensor<100x64xf32>, tensor<?xi64>) -> tensor<?x64xf32>
  %t = lpu.weight "table" : tensor<100x2x16xf32>
  %cos, %sin = lpu.rotary_table %t at %pos : (tensor<100x2x16xf32>, tensor<?xi64>) -> (tensor<?x16xf32>, tensor<?x16xf32>)
  %a = lpu.add %x, %p : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %h = lpu.reshape %a : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
  %r = lpu.rotary %h cos %cos sin %sin style half : (tensor<?x4x16xf32>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x4x16xf32>
  %at = lpu.attention %r, %r, %h slot 0 scale 2.500000e-01 window 32 softcap 5.000000e+01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  %f = lpu.reshape %at : (tensor<?x4x16xf32>) -> tensor<?x64xf32>
  %s = lpu.select_rows %f : tensor<?x64xf32>
  %l = lpu.linear %s by %e : tensor<?x64xf32>, tensor<128x64xf16> -> tensor<?x128xf32>
  func.return %l : tensor<?x128xf32>
}
}
// -----
builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 100 : i64, "lpu.matrix_type" = "f16"} {
func.func @main(%ids: tensor<?xi64>, %pos: tensor<?xi64>) -> tensor<?x128xf32> {
  %e = lpu.weight "embed.weight" : tensor<128x64xf16>
  %x = lpu.embedding %e at %ids : (tensor<128x64xf16>, tensor<?xi64>) -> tensor<?x64xf32> loc("model.embed")
  
  %w = lpu.weight "w" : tensor<64xf32>
  %one = lpu.constant 1.000000e+00 : tensor<f32>
  %g = lpu.add %w, %one : (tensor<64xf32>, tensor<f32>) -> tensor<64xf32>
  %a = lpu.mul %x, %g : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
  %h = lpu.reshape %a : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
  %m = lpu.mean %h : (tensor<?x4x16xf32>) -> tensor<?x4x1xf32>
  %c = lpu.sub %h, %m : (tensor<?x4x16xf32>, tensor<?x4x1xf32>) -> tensor<?x4x16xf32>
  %o = lpu.slice %c dim 2 from 0 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %n = lpu.neg %o : tensor<?x4x8xf32>
  %v = lpu.sub %one, %n : (tensor<f32>, tensor<?x4x8xf32>) -> tensor<?x4x8xf32>
  %t = lpu.transpose %v [0, 2, 1] : (tensor<?x4x8xf32>) -> tensor<?x8x4xf32>
  %b = lpu.concat %t, %t dim 1 : (tensor<?x8x4xf32>, tensor<?x8x4xf32>) -> tensor<?x16x4xf32>
  %k = lpu.reshape %b : (tensor<?x16x4xf32>) -> tensor<?x64xf32>
  %s = lpu.select_rows %k : tensor<?x64xf32>
  %l = lpu.linear %s by %e : tensor<?x64xf32>, tensor<128x64xf16> -> tensor<?x128xf32>
  func.return %l : tensor<?x128xf32>
}
}

// CHECK:      builtin.module attributes {lpu.target = "u55c", lpu.max_length = 100 : i64, lpu.matrix_type = "f16"} {
// CHECK-NEXT:   func.func @main() {
// CHECK-NEXT:     %x = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.embed dst=%x table=hbm[0] index=token ids=hbm[131072] limit=128 columns=64 type=f16 rows=tokens
// CHECK-NEXT:     %p = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.gather dst=%p table=hbm[16384] index=position ids=hbm[131072] offset=2 limit=100 columns=64 rows=tokens
// CHECK-NEXT:     %cos = isa.buffer : !isa.lmu<tokens x 32>
// CHECK-NEXT:     isa.gather dst=%cos table=hbm[43008] index=position ids=hbm[131072] limit=100 columns=32 rows=tokens
// CHECK-NEXT:     %a = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.binary function=add dst=%a a=%x b=%p columns=64 rows=tokens
// CHECK-NEXT:     %r = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.rotary dst=%r[group 16] a=%a[group 16] cos=%cos sin=%cos[16] style=half turned=16 groups=4 columns=16 rows=tokens
// CHECK-NEXT:     isa.store_key cache=hbm[57344] pitch=14336 src=%r heads=4 size=16 limit=100 type=f16 rows=tokens
// CHECK-NEXT:     isa.store_value cache=hbm[114688] pitch=4096 src=%a heads=4 size=16 limit=100 type=f16 rows=tokens
// CHECK-NEXT:     %at = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     %scores = isa.buffer : !isa.lmu<tokens x 128>
// CHECK-NEXT:     isa.set dst=r9 value=0
// CHECK-NEXT:     isa.set dst=r10 value=0
// CHECK-NEXT:     isa.add dst=r11 a=zero b=zero value=57344
// CHECK-NEXT:     isa.add dst=r12 a=zero b=zero value=57344
// CHECK-NEXT:     isa.repeat 4 {
// CHECK-NEXT:       isa.scores dst=%scores query=%r[r9] cache=hbm[r11] size=16 scale=0.25 softcap=50.0 window=32 type=f16 rows=tokens
// CHECK-NEXT:       isa.softmax dst=%scores src=%scores window=32 rows=tokens
// CHECK-NEXT:       isa.values dst=%at[r10] src=%scores cache=hbm[57344 + r12] size=16 limit=100 window=32 type=f16 rows=tokens
// CHECK-NEXT:       isa.add dst=r9 a=r9 b=zero value=16
// CHECK-NEXT:       isa.add dst=r10 a=r10 b=zero value=16
// CHECK-NEXT:       isa.add dst=r11 a=r11 b=zero value=14336
// CHECK-NEXT:       isa.add dst=r12 a=r12 b=zero value=4096
// CHECK-NEXT:     }
// CHECK-NEXT:     %s = isa.buffer : !isa.lmu<head x 64>
// CHECK-NEXT:     isa.select_rows dst=%s src=%at first=first_row columns=64 rows=head_rows
// CHECK-NEXT:     %l = isa.buffer : !isa.lmu<head x 128>
// CHECK-NEXT:     isa.matmul dst=%l src=%s weight=hbm[0] k=64 n=128 type=f16 rows=head_rows
// CHECK-NEXT:     isa.store dst=hbm[135168] pitch=512 src=%l columns=128 rows=head_rows
// CHECK-NEXT:     isa.sample dst=next_token src=%l columns=128 rows=head_rows settings=hbm[133120]
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module attributes {lpu.target = "u55c", lpu.max_length = 100 : i64, lpu.matrix_type = "f16"} {
// CHECK-NEXT:   func.func @main() {
// CHECK-NEXT:     isa.set dst=r8 value=1
// CHECK-NEXT:     %x = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.embed dst=%x table=hbm[0] index=token ids=hbm[18432] limit=128 columns=64 type=f16 rows=tokens
// CHECK-NEXT:     %w = isa.buffer : !isa.lmu<1 x 64>
// CHECK-NEXT:     isa.load dst=%w src=hbm[16384] columns=64
// CHECK-NEXT:     %g = isa.buffer : !isa.lmu<1 x 64>
// CHECK-NEXT:     isa.binary_scalar function=add dst=%g a=%w b=1.0 columns=64 rows=r8
// CHECK-NEXT:     %a = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.binary function=mul dst=%a a=%x b=%g columns=64 rows=tokens
// CHECK-NEXT:     %m = isa.buffer : !isa.lmu<tokens x 4>
// CHECK-NEXT:     isa.reduce function=mean dst=%m[group 1] a=%a[group 16] groups=4 columns=16 rows=tokens
// CHECK-NEXT:     %c = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.binary function=sub dst=%c[group 16] a=%a[group 16] b=%m[group 1, column 0] groups=4 columns=16 rows=tokens
// CHECK-NEXT:     %n = isa.buffer : !isa.lmu<tokens x 32>
// CHECK-NEXT:     isa.unary function=neg dst=%n a=%c[column 2] columns=32 rows=tokens
// CHECK-NEXT:     %v = isa.buffer : !isa.lmu<tokens x 32>
// CHECK-NEXT:     isa.binary_scalar function=sub dst=%v a=%n b=1.0 reversed=1 columns=32 rows=tokens
// CHECK-NEXT:     %b = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.unary function=copy dst=%b[group 4] a=%v[group 1] groups=8 columns=1 rows=tokens
// CHECK-NEXT:     isa.unary function=copy dst=%b[1, group 4] a=%v[8, group 1] groups=8 columns=1 rows=tokens
// CHECK-NEXT:     isa.unary function=copy dst=%b[2, group 4] a=%v[16, group 1] groups=8 columns=1 rows=tokens
// CHECK-NEXT:     isa.unary function=copy dst=%b[3, group 4] a=%v[24, group 1] groups=8 columns=1 rows=tokens
// CHECK-NEXT:     isa.unary function=copy dst=%b[32, group 4] a=%v[group 1] groups=8 columns=1 rows=tokens
// CHECK-NEXT:     isa.unary function=copy dst=%b[33, group 4] a=%v[8, group 1] groups=8 columns=1 rows=tokens
// CHECK-NEXT:     isa.unary function=copy dst=%b[34, group 4] a=%v[16, group 1] groups=8 columns=1 rows=tokens
// CHECK-NEXT:     isa.unary function=copy dst=%b[35, group 4] a=%v[24, group 1] groups=8 columns=1 rows=tokens
// CHECK-NEXT:     %s = isa.buffer : !isa.lmu<head x 64>
// CHECK-NEXT:     isa.select_rows dst=%s src=%b first=first_row columns=64 rows=head_rows
// CHECK-NEXT:     %l = isa.buffer : !isa.lmu<head x 128>
// CHECK-NEXT:     isa.matmul dst=%l src=%s weight=hbm[0] k=64 n=128 type=f16 rows=head_rows
// CHECK-NEXT:     isa.store dst=hbm[22528] pitch=512 src=%l columns=128 rows=head_rows
// CHECK-NEXT:     isa.sample dst=next_token src=%l columns=128 rows=head_rows settings=hbm[20480]
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT: }
