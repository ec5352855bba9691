// RUN: hyperdex-opt %s -p lpu-fuse-norm --split-input-file | filecheck %s
// Weights of 1 + w, LayerNorms spelled out, norms of heads: the first eight fuse. What follows is no such norm.

func.func @unit_offset(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %e = lpu.constant 1.000000e-05 : tensor<f32>
  %p = lpu.mul %x, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %m = lpu.mean %p : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %a = lpu.add %m, %e : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32>
  %r = lpu.rsqrt %a : tensor<?x1xf32>
  %n = lpu.mul %x, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
  %one = lpu.constant 1.000000e+00 : tensor<f32>
  %w = lpu.weight "norm.weight" : tensor<64xf32>
  %o = lpu.add %one, %w : (tensor<f32>, tensor<64xf32>) -> tensor<64xf32>
  %y = lpu.mul %n, %o : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
// -----
func.func @unit_offset_other_order(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %e = lpu.constant 1.000000e-05 : tensor<f32>
  %p = lpu.mul %x, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %m = lpu.mean %p : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %a = lpu.add %m, %e : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32>
  %r = lpu.rsqrt %a : tensor<?x1xf32>
  %n = lpu.mul %x, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
  %one = lpu.constant 1.000000e+00 : tensor<f32>
  %w = lpu.weight "norm.weight" : tensor<64xf32>
  %o = lpu.add %w, %one : (tensor<64xf32>, tensor<f32>) -> tensor<64xf32>
  %y = lpu.mul %o, %n : (tensor<64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
// -----
func.func @unit_offset_of_an_operand(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %one = lpu.constant 1.000000e+00 : tensor<f32>
  %w = lpu.weight "norm.weight" : tensor<64xf32>
  %o = lpu.add %w, %one : (tensor<64xf32>, tensor<f32>) -> tensor<64xf32>
  %y = lpu.layer_norm %x weight %o : tensor<64xf32> epsilon 1.000000e-05 : tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
// -----
func.func @layer_norm(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %u = lpu.mean %x : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %c = lpu.sub %x, %u : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
  %e = lpu.constant 1.000000e-05 : tensor<f32>
  %p = lpu.mul %c, %c : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %m = lpu.mean %p : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %a = lpu.add %m, %e : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32>
  %r = lpu.rsqrt %a : tensor<?x1xf32>
  %n = lpu.mul %c, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
  %w = lpu.weight "norm.weight" : tensor<64xf32>
  %b = lpu.weight "norm.bias" : tensor<64xf32>
  %z = lpu.mul %n, %w : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
  %y = lpu.add %z, %b : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
// -----
func.func @layer_norm_bias_alone(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %u = lpu.mean %x : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %c = lpu.sub %x, %u : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
  %e = lpu.constant 1.000000e-05 : tensor<f32>
  %p = lpu.mul %c, %c : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %m = lpu.mean %p : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %a = lpu.add %m, %e : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32>
  %r = lpu.rsqrt %a : tensor<?x1xf32>
  %n = lpu.mul %c, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
  %w = lpu.weight "norm.weight" : tensor<64xf32>
  %b = lpu.weight "norm.bias" : tensor<64xf32>
  %y = lpu.add %b, %n : (tensor<64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
// -----
func.func @layer_norm_of_nothing(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %u = lpu.mean %x : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %c = lpu.sub %x, %u : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
  %e = lpu.constant 1.000000e-05 : tensor<f32>
  %p = lpu.mul %c, %c : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %m = lpu.mean %p : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %a = lpu.add %m, %e : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32>
  %r = lpu.rsqrt %a : tensor<?x1xf32>
  %n = lpu.mul %c, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
  func.return %n : tensor<?x64xf32>
}
// -----
func.func @layer_norm_unit_offset(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %u = lpu.mean %x : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %c = lpu.sub %x, %u : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
  %e = lpu.constant 1.000000e-05 : tensor<f32>
  %p = lpu.mul %c, %c : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %m = lpu.mean %p : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %a = lpu.add %m, %e : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32>
  %r = lpu.rsqrt %a : tensor<?x1xf32>
  %n = lpu.mul %c, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
  %one = lpu.constant 1.000000e+00 : tensor<f32>
  %w = lpu.weight "norm.weight" : tensor<64xf32>
  %o = lpu.add %one, %w : (tensor<f32>, tensor<64xf32>) -> tensor<64xf32>
  %y = lpu.mul %o, %n : (tensor<64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
// -----
func.func @norm_of_heads(%x: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
  %e = lpu.constant 1.000000e-05 : tensor<f32>
  %w = lpu.weight "q_norm.weight" : tensor<16xf32>
  %p = lpu.mul %x, %x : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  %m = lpu.mean %p : (tensor<?x4x16xf32>) -> tensor<?x4x1xf32>
  %a = lpu.add %m, %e : (tensor<?x4x1xf32>, tensor<f32>) -> tensor<?x4x1xf32>
  %r = lpu.rsqrt %a : tensor<?x4x1xf32>
  %n = lpu.mul %x, %r : (tensor<?x4x16xf32>, tensor<?x4x1xf32>) -> tensor<?x4x16xf32>
  %y = lpu.mul %n, %w : (tensor<?x4x16xf32>, tensor<16xf32>) -> tensor<?x4x16xf32>
  func.return %y : tensor<?x4x16xf32>
}
// -----
func.func @offset_of_two(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %e = lpu.constant 1.000000e-05 : tensor<f32>
  %p = lpu.mul %x, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %m = lpu.mean %p : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %a = lpu.add %m, %e : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32>
  %r = lpu.rsqrt %a : tensor<?x1xf32>
  %n = lpu.mul %x, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
  %one = lpu.constant 2.000000e+00 : tensor<f32>
  %w = lpu.weight "norm.weight" : tensor<64xf32>
  %o = lpu.add %one, %w : (tensor<f32>, tensor<64xf32>) -> tensor<64xf32>
  %y = lpu.mul %n, %o : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
// -----
func.func @mean_of_other(%x: tensor<?x64xf32>, %z: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %u = lpu.mean %z : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %c = lpu.sub %x, %u : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
  %e = lpu.constant 1.000000e-05 : tensor<f32>
  %p = lpu.mul %c, %c : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %m = lpu.mean %p : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %a = lpu.add %m, %e : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32>
  %r = lpu.rsqrt %a : tensor<?x1xf32>
  %n = lpu.mul %c, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
  func.return %n : tensor<?x64xf32>
}
// -----
func.func @mean_minus_x(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %u = lpu.mean %x : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %c = lpu.sub %u, %x : (tensor<?x1xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %e = lpu.constant 1.000000e-05 : tensor<f32>
  %p = lpu.mul %c, %c : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %m = lpu.mean %p : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %a = lpu.add %m, %e : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32>
  %r = lpu.rsqrt %a : tensor<?x1xf32>
  %n = lpu.mul %c, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
  func.return %n : tensor<?x64xf32>
}
// -----
func.func @bias_before_weight(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %u = lpu.mean %x : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %c = lpu.sub %x, %u : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
  %e = lpu.constant 1.000000e-05 : tensor<f32>
  %p = lpu.mul %c, %c : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %m = lpu.mean %p : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %a = lpu.add %m, %e : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32>
  %r = lpu.rsqrt %a : tensor<?x1xf32>
  %n = lpu.mul %c, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
  %w = lpu.weight "norm.weight" : tensor<64xf32>
  %b = lpu.weight "norm.bias" : tensor<64xf32>
  %z = lpu.add %n, %b : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
  %y = lpu.mul %z, %w : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
// -----
func.func @bias_of_an_rms_norm(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %e = lpu.constant 1.000000e-05 : tensor<f32>
  %p = lpu.mul %x, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %m = lpu.mean %p : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %a = lpu.add %m, %e : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32>
  %r = lpu.rsqrt %a : tensor<?x1xf32>
  %n = lpu.mul %x, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
  %w = lpu.weight "norm.weight" : tensor<64xf32>
  %b = lpu.weight "norm.bias" : tensor<64xf32>
  %y = lpu.add %n, %b : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
// -----
func.func @divided_by_the_root(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %e = lpu.constant 1.000000e-05 : tensor<f32>
  %p = lpu.mul %x, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %m = lpu.mean %p : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %a = lpu.add %m, %e : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32>
  %r = lpu.sqrt %a : tensor<?x1xf32>
  %y = lpu.div %x, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}

// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @unit_offset(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w = lpu.weight "norm.weight" : tensor<64xf32>
// CHECK-NEXT:     %y = lpu.rms_norm %x weight %w : tensor<64xf32> unit_offset epsilon 1.000000e-05 : tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @unit_offset_other_order(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w = lpu.weight "norm.weight" : tensor<64xf32>
// CHECK-NEXT:     %y = lpu.rms_norm %x weight %w : tensor<64xf32> unit_offset epsilon 1.000000e-05 : tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @unit_offset_of_an_operand(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w = lpu.weight "norm.weight" : tensor<64xf32>
// CHECK-NEXT:     %y = lpu.layer_norm %x weight %w : tensor<64xf32> unit_offset epsilon 1.000000e-05 : tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @layer_norm(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w = lpu.weight "norm.weight" : tensor<64xf32>
// CHECK-NEXT:     %b = lpu.weight "norm.bias" : tensor<64xf32>
// CHECK-NEXT:     %y = lpu.layer_norm %x weight %w : tensor<64xf32> bias %b : tensor<64xf32> epsilon 1.000000e-05 : tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @layer_norm_bias_alone(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %b = lpu.weight "norm.bias" : tensor<64xf32>
// CHECK-NEXT:     %y = lpu.layer_norm %x bias %b : tensor<64xf32> epsilon 1.000000e-05 : tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @layer_norm_of_nothing(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %n = lpu.layer_norm %x epsilon 1.000000e-05 : tensor<?x64xf32>
// CHECK-NEXT:     func.return %n : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @layer_norm_unit_offset(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w = lpu.weight "norm.weight" : tensor<64xf32>
// CHECK-NEXT:     %y = lpu.layer_norm %x weight %w : tensor<64xf32> unit_offset epsilon 1.000000e-05 : tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @norm_of_heads(%x: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %w = lpu.weight "q_norm.weight" : tensor<16xf32>
// CHECK-NEXT:     %y = lpu.rms_norm %x weight %w : tensor<16xf32> epsilon 1.000000e-05 : tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %y : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @offset_of_two(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %n = lpu.rms_norm %x epsilon 1.000000e-05 : tensor<?x64xf32>
// CHECK-NEXT:     %one = lpu.constant 2.000000e+00 : tensor<f32>
// CHECK-NEXT:     %w = lpu.weight "norm.weight" : tensor<64xf32>
// CHECK-NEXT:     %o = lpu.add %one, %w : (tensor<f32>, tensor<64xf32>) -> tensor<64xf32>
// CHECK-NEXT:     %y = lpu.mul %n, %o : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @mean_of_other(%x: tensor<?x64xf32>, %z: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %u = lpu.mean %z : (tensor<?x64xf32>) -> tensor<?x1xf32>
// CHECK-NEXT:     %c = lpu.sub %x, %u : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %n = lpu.rms_norm %c epsilon 1.000000e-05 : tensor<?x64xf32>
// CHECK-NEXT:     func.return %n : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @mean_minus_x(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %u = lpu.mean %x : (tensor<?x64xf32>) -> tensor<?x1xf32>
// CHECK-NEXT:     %c = lpu.sub %u, %x : (tensor<?x1xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %n = lpu.rms_norm %c epsilon 1.000000e-05 : tensor<?x64xf32>
// CHECK-NEXT:     func.return %n : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @bias_before_weight(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w = lpu.weight "norm.weight" : tensor<64xf32>
// CHECK-NEXT:     %b = lpu.weight "norm.bias" : tensor<64xf32>
// CHECK-NEXT:     %z = lpu.layer_norm %x bias %b : tensor<64xf32> epsilon 1.000000e-05 : tensor<?x64xf32>
// CHECK-NEXT:     %y = lpu.mul %z, %w : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @bias_of_an_rms_norm(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %n = lpu.rms_norm %x epsilon 1.000000e-05 : tensor<?x64xf32>
// CHECK-NEXT:     %b = lpu.weight "norm.bias" : tensor<64xf32>
// CHECK-NEXT:     %y = lpu.add %n, %b : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @divided_by_the_root(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %e = lpu.constant 1.000000e-05 : tensor<f32>
// CHECK-NEXT:     %p = lpu.mul %x, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %m = lpu.mean %p : (tensor<?x64xf32>) -> tensor<?x1xf32>
// CHECK-NEXT:     %a = lpu.add %m, %e : (tensor<?x1xf32>, tensor<f32>) -> tensor<?x1xf32>
// CHECK-NEXT:     %r = lpu.sqrt %a : tensor<?x1xf32>
// CHECK-NEXT:     %y = lpu.div %x, %r : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
