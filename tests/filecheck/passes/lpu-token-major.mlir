// RUN: hyperdex-opt %s -p lpu-token-major --split-input-file | filecheck %s
// Batch dimensions go, tokens come first; transposes that only move tokens disappear.

func.func @heads(%x: tensor<?x64xf32>, %cos: tensor<?x16xf32>) -> tensor<?x64xf32> {
  %b = lpu.reshape %x : (tensor<?x64xf32>) -> tensor<1x?x4x16xf32>
  %h = lpu.transpose %b [0, 2, 1, 3] : (tensor<1x?x4x16xf32>) -> tensor<1x4x?x16xf32>
  %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<1x1x?x16xf32>
  %m = lpu.mul %h, %c : (tensor<1x4x?x16xf32>, tensor<1x1x?x16xf32>) -> tensor<1x4x?x16xf32>
  %l = lpu.slice %m dim 3 from 8 to 16 : (tensor<1x4x?x16xf32>) -> tensor<1x4x?x8xf32>
  %n = lpu.concat %l, %l dim 1 : (tensor<1x4x?x8xf32>, tensor<1x4x?x8xf32>) -> tensor<1x8x?x8xf32>
  %t = lpu.transpose %n [0, 2, 1, 3] : (tensor<1x8x?x8xf32>) -> tensor<1x?x8x8xf32>
  %r = lpu.reshape %t : (tensor<1x?x8x8xf32>) -> tensor<?x64xf32>
  func.return %r : tensor<?x64xf32>
}
// -----
func.func @features_move(%x: tensor<1x?x4x16xf32>) -> tensor<1x16x?x4xf32> {
  %t = lpu.transpose %x [0, 3, 1, 2] : (tensor<1x?x4x16xf32>) -> tensor<1x16x?x4xf32>
  func.return %t : tensor<1x16x?x4xf32>
}
// -----
func.func @parameters_stay(%x: tensor<1x?x64xf32>) -> tensor<1x?x64xf32> {
  %w = lpu.weight "norm.weight" : tensor<64xf32>
  %one = lpu.constant 1.000000e+00 : tensor<f32>
  %g = lpu.add %w, %one : (tensor<64xf32>, tensor<f32>) -> tensor<64xf32>
  %y = lpu.mul %g, %x : (tensor<64xf32>, tensor<1x?x64xf32>) -> tensor<1x?x64xf32>
  %b = lpu.broadcast %y : (tensor<1x?x64xf32>) -> tensor<1x?x64xf32>
  func.return %b : tensor<1x?x64xf32>
}
// -----
func.func @model_ops(%ids: tensor<1x?xi64>) -> tensor<1x?x128xf32> {
  %t = lpu.weight "embed.weight" : tensor<128x64xf16>
  %e = lpu.embedding %t at %ids {offset = 2 : i64} : (tensor<128x64xf16>, tensor<1x?xi64>) -> tensor<1x?x64xf32>
  %s = lpu.rms_norm %e epsilon 1.000000e-06 : tensor<1x?x64xf32>
  %l = lpu.linear %s by %t scale 2.000000e+00 then silu : tensor<1x?x64xf32>, tensor<128x64xf16> -> tensor<1x?x128xf32>
  func.return %l : tensor<1x?x128xf32>
}
// -----
func.func @already_token_major(%x: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
  %y = lpu.silu %x : tensor<?x4x16xf32>
  func.return %y : tensor<?x4x16xf32>
}

// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @heads(%x: tensor<?x64xf32>, %cos: tensor<?x16xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %b = lpu.reshape %x : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
// CHECK-NEXT:     %m = lpu.mul %b, %c : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %l = lpu.slice %m dim 2 from 8 to 16 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
// CHECK-NEXT:     %n = lpu.concat %l, %l dim 1 : (tensor<?x4x8xf32>, tensor<?x4x8xf32>) -> tensor<?x8x8xf32>
// CHECK-NEXT:     %r = lpu.reshape %n : (tensor<?x8x8xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %r : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @features_move(%x: tensor<?x4x16xf32>) -> tensor<?x16x4xf32> {
// CHECK-NEXT:     %t = lpu.transpose %x [0, 2, 1] : (tensor<?x4x16xf32>) -> tensor<?x16x4xf32>
// CHECK-NEXT:     func.return %t : tensor<?x16x4xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @parameters_stay(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w = lpu.weight "norm.weight" : tensor<64xf32>
// CHECK-NEXT:     %one = lpu.constant 1.000000e+00 : tensor<f32>
// CHECK-NEXT:     %g = lpu.add %w, %one : (tensor<64xf32>, tensor<f32>) -> tensor<64xf32>
// CHECK-NEXT:     %y = lpu.mul %g, %x : (tensor<64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @model_ops(%ids: tensor<?xi64>) -> tensor<?x128xf32> {
// CHECK-NEXT:     %t = lpu.weight "embed.weight" : tensor<128x64xf16>
// CHECK-NEXT:     %e = lpu.embedding %t at %ids {offset = 2 : i64} : (tensor<128x64xf16>, tensor<?xi64>) -> tensor<?x64xf32>
// CHECK-NEXT:     %s = lpu.rms_norm %e epsilon 1.000000e-06 : tensor<?x64xf32>
// CHECK-NEXT:     %l = lpu.linear %s by %t scale 2.000000e+00 then silu : tensor<?x64xf32>, tensor<128x64xf16> -> tensor<?x128xf32>
// CHECK-NEXT:     func.return %l : tensor<?x128xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @already_token_major(%x: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %y = lpu.silu %x : tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %y : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
