// RUN: hyperdex-opt %s -p lpu-fuse-norm --split-input-file --print-debuginfo | filecheck %s
// The first three fuse wholly; of the fourth the weight stays apart; the others are no RMSNorm.

func.func @rms_norm(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %e = lpu.constant 1.000000e-05 : tensor<f32>
  %w = lpu.weight "norm.weight" : tensor<64xf32>
  %p = lpu.mul %x, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %m = lpu.mean %p : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %a = lpu.add %m, %e : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32>
  %r = lpu.rsqrt %a : tensor<?x1xf32>
  %n = lpu.mul %x, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32> loc("model.norm")
  %y = lpu.mul %w, %n : (tensor<64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32> loc("model.norm")
  func.return %y : tensor<?x64xf32>
}
// -----
func.func @other_order(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %e = lpu.constant 1.000000e-05 : tensor<f32>
  %w = lpu.weight "norm.weight" : tensor<64xf32>
  %p = lpu.mul %x, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %m = lpu.mean %p : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %a = lpu.add %m, %e : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32>
  %r = lpu.rsqrt %a : tensor<?x1xf32>
  %n = lpu.mul %r, %x : (tensor<?x1xf32>, tensor<?x64xf32>) -> tensor<?x64xf32> loc("model.norm")
  %y = lpu.mul %n, %w : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32> loc("model.norm")
  func.return %y : tensor<?x64xf32>
}
// -----
func.func @without_weight(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %e = lpu.constant 1.000000e-05 : tensor<f32>
  %w = lpu.weight "norm.weight" : tensor<64xf32>
  %p = lpu.mul %x, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %m = lpu.mean %p : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %a = lpu.add %m, %e : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32>
  %r = lpu.rsqrt %a : tensor<?x1xf32>
  %n = lpu.mul %x, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32> loc("model.norm")
  %y = lpu.mul %w, %n : (tensor<64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32> loc("model.norm")
  func.return %n : tensor<?x64xf32>
}
// -----
func.func @normalised_value_used_twice(%x: tensor<?x64xf32>) -> (tensor<?x64xf32>, tensor<?x64xf32>) {
  %e = lpu.constant 1.000000e-05 : tensor<f32>
  %w = lpu.weight "norm.weight" : tensor<64xf32>
  %p = lpu.mul %x, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %m = lpu.mean %p : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %a = lpu.add %m, %e : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32>
  %r = lpu.rsqrt %a : tensor<?x1xf32>
  %n = lpu.mul %x, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32> loc("model.norm")
  %y = lpu.mul %w, %n : (tensor<64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32> loc("model.norm")
  func.return %y, %n : tensor<?x64xf32>, tensor<?x64xf32>
}
// -----
func.func @square_of_other(%x: tensor<?x64xf32>, %z: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %e = lpu.constant 1.000000e-05 : tensor<f32>
  %w = lpu.weight "norm.weight" : tensor<64xf32>
  %p = lpu.mul %x, %z : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %m = lpu.mean %p : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %a = lpu.add %m, %e : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32>
  %r = lpu.rsqrt %a : tensor<?x1xf32>
  %n = lpu.mul %x, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32> loc("model.norm")
  %y = lpu.mul %w, %n : (tensor<64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32> loc("model.norm")
  func.return %y : tensor<?x64xf32>
}
// -----
func.func @sum_for_mean(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %e = lpu.constant 1.000000e-05 : tensor<f32>
  %w = lpu.weight "norm.weight" : tensor<64xf32>
  %p = lpu.mul %x, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %m = lpu.sum %p : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %a = lpu.add %m, %e : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32>
  %r = lpu.rsqrt %a : tensor<?x1xf32>
  %n = lpu.mul %x, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32> loc("model.norm")
  %y = lpu.mul %w, %n : (tensor<64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32> loc("model.norm")
  func.return %y : tensor<?x64xf32>
}
// -----
func.func @epsilon_not_constant(%x: tensor<?x64xf32>, %v: tensor<?x1xf32>) -> tensor<?x64xf32> {
  %e = lpu.constant 1.000000e-05 : tensor<f32>
  %w = lpu.weight "norm.weight" : tensor<64xf32>
  %p = lpu.mul %x, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %m = lpu.mean %p : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %a = lpu.add %m, %v : (tensor<?x1xf32>, tensor<?x1xf32>) -> tensor<?x1xf32>
  %r = lpu.rsqrt %a : tensor<?x1xf32>
  %n = lpu.mul %x, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32> loc("model.norm")
  %y = lpu.mul %w, %n : (tensor<64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32> loc("model.norm")
  func.return %y : tensor<?x64xf32>
}
// -----
func.func @weight_of_one_column(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %e = lpu.constant 1.000000e-05 : tensor<f32>
  %w = lpu.weight "norm.weight" : tensor<1xf32>
  %p = lpu.mul %x, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %m = lpu.mean %p : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %a = lpu.add %m, %e : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32>
  %r = lpu.rsqrt %a : tensor<?x1xf32>
  %n = lpu.mul %x, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32> loc("model.norm")
  %y = lpu.mul %w, %n : (tensor<1xf32>, tensor<?x64xf32>) -> tensor<?x64xf32> loc("model.norm")
  func.return %y : tensor<?x64xf32>
}

// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @rms_norm(%x: tensor<?x64xf32> loc(unknown)) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w = lpu.weight "norm.weight" : tensor<64xf32> loc(unknown)
// CHECK-NEXT:     %y = lpu.rms_norm %x weight %w : tensor<64xf32> epsilon 1.000000e-05 : tensor<?x64xf32> loc("model.norm")
// CHECK-NEXT:     func.return %y : tensor<?x64xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @other_order(%x: tensor<?x64xf32> loc(unknown)) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w = lpu.weight "norm.weight" : tensor<64xf32> loc(unknown)
// CHECK-NEXT:     %y = lpu.rms_norm %x weight %w : tensor<64xf32> epsilon 1.000000e-05 : tensor<?x64xf32> loc("model.norm")
// CHECK-NEXT:     func.return %y : tensor<?x64xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @without_weight(%x: tensor<?x64xf32> loc(unknown)) -> tensor<?x64xf32> {
// CHECK-NEXT:     %n = lpu.rms_norm %x epsilon 1.000000e-05 : tensor<?x64xf32> loc("model.norm")
// CHECK-NEXT:     func.return %n : tensor<?x64xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @normalised_value_used_twice(%x: tensor<?x64xf32> loc(unknown)) -> (tensor<?x64xf32>, tensor<?x64xf32>) {
// CHECK-NEXT:     %w = lpu.weight "norm.weight" : tensor<64xf32> loc(unknown)
// CHECK-NEXT:     %n = lpu.rms_norm %x epsilon 1.000000e-05 : tensor<?x64xf32> loc("model.norm")
// CHECK-NEXT:     %y = lpu.mul %w, %n : (tensor<64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32> loc("model.norm")
// CHECK-NEXT:     func.return %y, %n : tensor<?x64xf32>, tensor<?x64xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @square_of_other(%x: tensor<?x64xf32> loc(unknown), %z: tensor<?x64xf32> loc(unknown)) -> tensor<?x64xf32> {
// CHECK-NEXT:     %e = lpu.constant 1.000000e-05 : tensor<f32> loc(unknown)
// CHECK-NEXT:     %w = lpu.weight "norm.weight" : tensor<64xf32> loc(unknown)
// CHECK-NEXT:     %p = lpu.mul %x, %z : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32> loc(unknown)
// CHECK-NEXT:     %m = lpu.mean %p : (tensor<?x64xf32>) -> tensor<?x1xf32> loc(unknown)
// CHECK-NEXT:     %a = lpu.add %m, %e : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32> loc(unknown)
// CHECK-NEXT:     %r = lpu.rsqrt %a : tensor<?x1xf32> loc(unknown)
// CHECK-NEXT:     %n = lpu.mul %x, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32> loc("model.norm")
// CHECK-NEXT:     %y = lpu.mul %w, %n : (tensor<64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32> loc("model.norm")
// CHECK-NEXT:     func.return %y : tensor<?x64xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @sum_for_mean(%x: tensor<?x64xf32> loc(unknown)) -> tensor<?x64xf32> {
// CHECK-NEXT:     %e = lpu.constant 1.000000e-05 : tensor<f32> loc(unknown)
// CHECK-NEXT:     %w = lpu.weight "norm.weight" : tensor<64xf32> loc(unknown)
// CHECK-NEXT:     %p = lpu.mul %x, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32> loc(unknown)
// CHECK-NEXT:     %m = lpu.sum %p : (tensor<?x64xf32>) -> tensor<?x1xf32> loc(unknown)
// CHECK-NEXT:     %a = lpu.add %m, %e : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32> loc(unknown)
// CHECK-NEXT:     %r = lpu.rsqrt %a : tensor<?x1xf32> loc(unknown)
// CHECK-NEXT:     %n = lpu.mul %x, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32> loc("model.norm")
// CHECK-NEXT:     %y = lpu.mul %w, %n : (tensor<64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32> loc("model.norm")
// CHECK-NEXT:     func.return %y : tensor<?x64xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @epsilon_not_constant(%x: tensor<?x64xf32> loc(unknown), %v: tensor<?x1xf32> loc(unknown)) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w = lpu.weight "norm.weight" : tensor<64xf32> loc(unknown)
// CHECK-NEXT:     %p = lpu.mul %x, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32> loc(unknown)
// CHECK-NEXT:     %m = lpu.mean %p : (tensor<?x64xf32>) -> tensor<?x1xf32> loc(unknown)
// CHECK-NEXT:     %a = lpu.add %m, %v : (tensor<?x1xf32>, tensor<?x1xf32>) -> tensor<?x1xf32> loc(unknown)
// CHECK-NEXT:     %r = lpu.rsqrt %a : tensor<?x1xf32> loc(unknown)
// CHECK-NEXT:     %n = lpu.mul %x, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32> loc("model.norm")
// CHECK-NEXT:     %y = lpu.mul %w, %n : (tensor<64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32> loc("model.norm")
// CHECK-NEXT:     func.return %y : tensor<?x64xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @weight_of_one_column(%x: tensor<?x64xf32> loc(unknown)) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w = lpu.weight "norm.weight" : tensor<1xf32> loc(unknown)
// CHECK-NEXT:     %n = lpu.rms_norm %x epsilon 1.000000e-05 : tensor<?x64xf32> loc("model.norm")
// CHECK-NEXT:     %y = lpu.mul %w, %n : (tensor<1xf32>, tensor<?x64xf32>) -> tensor<?x64xf32> loc("model.norm")
// CHECK-NEXT:     func.return %y : tensor<?x64xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
