// RUN: hyperdex-opt %s -p lpu-fuse-epilogue --split-input-file | filecheck %s
// Gated linears, scales, a GELU spelled out: the first five fuse, the others must stay.

func.func @gate_residual(%x: tensor<?x64xf32>, %z: tensor<?x96xf32>) -> tensor<?x96xf32> {
  %w = lpu.weight "a.weight", "b.weight" : tensor<192x64xf16>
  %l = lpu.linear %x by %w gated then silu : tensor<?x64xf32>, tensor<192x64xf16> -> tensor<?x96xf32>
  %g = lpu.mul %l, %z : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
  %y = lpu.add %g, %z : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
  func.return %y : tensor<?x96xf32>
}
// -----
func.func @power_of_two(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
  %w = lpu.weight "a.weight" : tensor<96x64xf16>
  %l = lpu.linear %x by %w : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32>
  %k = lpu.constant 8.000000e+00 : tensor<f32>
  %y = lpu.div %l, %k : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
  func.return %y : tensor<?x96xf32>
}
// -----
func.func @power_of_two_as_a_cap(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
  %w = lpu.weight "a.weight" : tensor<96x64xf16>
  %l = lpu.linear %x by %w : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32>
  %k = lpu.constant 3.200000e+01 : tensor<f32>
  %d = lpu.div %l, %k : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
  %t = lpu.tanh %d : tensor<?x96xf32>
  %y = lpu.mul %t, %k : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
  func.return %y : tensor<?x96xf32>
}
// -----
func.func @gelu(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
  %w = lpu.weight "a.weight" : tensor<96x64xf16>
  %l = lpu.linear %x by %w : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32>
  %h = lpu.constant 5.000000e-01 : tensor<f32>
  %1 = lpu.constant 1.000000e+00 : tensor<f32>
  %c = lpu.constant 0.797884583 : tensor<f32>
  %a = lpu.constant 4.471500e-02 : tensor<f32>
  %2 = lpu.mul %l, %h : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
  %3 = lpu.mul %l, %l : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
  %4 = lpu.mul %3, %l : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
  %5 = lpu.mul %4, %a : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
  %6 = lpu.add %l, %5 : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
  %7 = lpu.mul %6, %c : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
  %8 = lpu.tanh %7 : tensor<?x96xf32>
  %9 = lpu.add %8, %1 : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
  %y = lpu.mul %2, %9 : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
  func.return %y : tensor<?x96xf32>
}
// -----
func.func @embedding_scale(%i: tensor<?xi64>) -> tensor<?x64xf32> {
  %t = lpu.weight "embed" : tensor<99x64xf16>
  %l = lpu.embedding %t at %i {offset = 2 : i64} : (tensor<99x64xf16>, tensor<?xi64>) -> tensor<?x64xf32>
  %k = lpu.constant 8.000000e+00 : tensor<f32>
  %y = lpu.mul %k, %l : (tensor<f32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
// -----
func.func @scale_of_a_gated_one(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
  %w = lpu.weight "a.weight", "b.weight" : tensor<192x64xf16>
  %l = lpu.linear %x by %w gated then silu : tensor<?x64xf32>, tensor<192x64xf16> -> tensor<?x96xf32>
  %k = lpu.constant 8.000000e+00 : tensor<f32>
  %y = lpu.mul %l, %k : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
  func.return %y : tensor<?x96xf32>
}
// -----
func.func @activation_of_a_gated_one(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
  %w = lpu.weight "a.weight", "b.weight" : tensor<192x64xf16>
  %l = lpu.linear %x by %w gated then silu : tensor<?x64xf32>, tensor<192x64xf16> -> tensor<?x96xf32>
  %y = lpu.relu %l : tensor<?x96xf32>
  func.return %y : tensor<?x96xf32>
}
// -----
func.func @bias_of_a_gated_one(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
  %w = lpu.weight "a.weight", "b.weight" : tensor<192x64xf16>
  %l = lpu.linear %x by %w gated then silu : tensor<?x64xf32>, tensor<192x64xf16> -> tensor<?x96xf32>
  %b = lpu.weight "b" : tensor<96xf32>
  %y = lpu.add %l, %b : (tensor<?x96xf32>, tensor<96xf32>) -> tensor<?x96xf32>
  func.return %y : tensor<?x96xf32>
}
// -----
func.func @no_power_of_two(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
  %w = lpu.weight "a.weight" : tensor<96x64xf16>
  %l = lpu.linear %x by %w : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32>
  %k = lpu.constant 3.000000e+00 : tensor<f32>
  %y = lpu.div %l, %k : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
  func.return %y : tensor<?x96xf32>
}
// -----
func.func @constant_divided(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
  %w = lpu.weight "a.weight" : tensor<96x64xf16>
  %l = lpu.linear %x by %w : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32>
  %k = lpu.constant 8.000000e+00 : tensor<f32>
  %y = lpu.div %k, %l : (tensor<f32>, tensor<?x96xf32>) -> tensor<?x96xf32>
  func.return %y : tensor<?x96xf32>
}
// -----
func.func @cube_of_other_association(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
  %w = lpu.weight "a.weight" : tensor<96x64xf16>
  %l = lpu.linear %x by %w : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32>
  %h = lpu.constant 5.000000e-01 : tensor<f32>
  %1 = lpu.constant 1.000000e+00 : tensor<f32>
  %c = lpu.constant 0.797884583 : tensor<f32>
  %a = lpu.constant 4.471500e-02 : tensor<f32>
  %2 = lpu.mul %l, %h : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
  %3 = lpu.mul %l, %l : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
  %4 = lpu.mul %3, %l : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
  %5 = lpu.mul %3, %a : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
  %6 = lpu.add %4, %5 : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
  %7 = lpu.mul %6, %c : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
  %8 = lpu.tanh %7 : tensor<?x96xf32>
  %9 = lpu.add %8, %1 : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
  %y = lpu.mul %2, %9 : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
  func.return %y : tensor<?x96xf32>
}
// -----
func.func @embedding_used_twice(%i: tensor<?xi64>) -> (tensor<?x64xf32>, tensor<?x64xf32>) {
  %t = lpu.weight "embed" : tensor<99x64xf16>
  %l = lpu.embedding %t at %i {offset = 2 : i64} : (tensor<99x64xf16>, tensor<?xi64>) -> tensor<?x64xf32>
  %k = lpu.constant 8.000000e+00 : tensor<f32>
  %y = lpu.mul %l, %k : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32>
  func.return %y, %l : tensor<?x64xf32>, tensor<?x64xf32>
}
// -----
func.func @embedding_times_a_value(%i: tensor<?xi64>, %k: tensor<f32>) -> tensor<?x64xf32> {
  %t = lpu.weight "embed" : tensor<99x64xf16>
  %l = lpu.embedding %t at %i {offset = 2 : i64} : (tensor<99x64xf16>, tensor<?xi64>) -> tensor<?x64xf32>
  %y = lpu.mul %l, %k : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}

// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @gate_residual(%x: tensor<?x64xf32>, %z: tensor<?x96xf32>) -> tensor<?x96xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight", "b.weight" : tensor<192x64xf16>
// CHECK-NEXT:     %y = lpu.linear %x by %w gated then silu times %z plus %z : tensor<?x64xf32>, tensor<192x64xf16> -> tensor<?x96xf32>
// CHECK-NEXT:     func.return %y : tensor<?x96xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @power_of_two(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<96x64xf16>
// CHECK-NEXT:     %y = lpu.linear %x by %w scale 1.250000e-01 : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32>
// CHECK-NEXT:     func.return %y : tensor<?x96xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @power_of_two_as_a_cap(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<96x64xf16>
// CHECK-NEXT:     %y = lpu.linear %x by %w softcap 3.200000e+01 : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32>
// CHECK-NEXT:     func.return %y : tensor<?x96xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @gelu(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<96x64xf16>
// CHECK-NEXT:     %y = lpu.linear %x by %w then gelu_tanh : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32>
// CHECK-NEXT:     func.return %y : tensor<?x96xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @embedding_scale(%i: tensor<?xi64>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %t = lpu.weight "embed" : tensor<99x64xf16>
// CHECK-NEXT:     %y = lpu.embedding %t at %i scale 8.000000e+00 {offset = 2 : i64} : (tensor<99x64xf16>, tensor<?xi64>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @scale_of_a_gated_one(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight", "b.weight" : tensor<192x64xf16>
// CHECK-NEXT:     %l = lpu.linear %x by %w gated then silu : tensor<?x64xf32>, tensor<192x64xf16> -> tensor<?x96xf32>
// CHECK-NEXT:     %k = lpu.constant 8.000000e+00 : tensor<f32>
// CHECK-NEXT:     %y = lpu.mul %l, %k : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
// CHECK-NEXT:     func.return %y : tensor<?x96xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @activation_of_a_gated_one(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight", "b.weight" : tensor<192x64xf16>
// CHECK-NEXT:     %l = lpu.linear %x by %w gated then silu : tensor<?x64xf32>, tensor<192x64xf16> -> tensor<?x96xf32>
// CHECK-NEXT:     %y = lpu.relu %l : tensor<?x96xf32>
// CHECK-NEXT:     func.return %y : tensor<?x96xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @bias_of_a_gated_one(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight", "b.weight" : tensor<192x64xf16>
// CHECK-NEXT:     %l = lpu.linear %x by %w gated then silu : tensor<?x64xf32>, tensor<192x64xf16> -> tensor<?x96xf32>
// CHECK-NEXT:     %b = lpu.weight "b" : tensor<96xf32>
// CHECK-NEXT:     %y = lpu.add %l, %b : (tensor<?x96xf32>, tensor<96xf32>) -> tensor<?x96xf32>
// CHECK-NEXT:     func.return %y : tensor<?x96xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @no_power_of_two(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<96x64xf16>
// CHECK-NEXT:     %l = lpu.linear %x by %w : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32>
// CHECK-NEXT:     %k = lpu.constant 3.000000e+00 : tensor<f32>
// CHECK-NEXT:     %y = lpu.div %l, %k : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
// CHECK-NEXT:     func.return %y : tensor<?x96xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @constant_divided(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<96x64xf16>
// CHECK-NEXT:     %l = lpu.linear %x by %w : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32>
// CHECK-NEXT:     %k = lpu.constant 8.000000e+00 : tensor<f32>
// CHECK-NEXT:     %y = lpu.div %k, %l : (tensor<f32>, tensor<?x96xf32>) -> tensor<?x96xf32>
// CHECK-NEXT:     func.return %y : tensor<?x96xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @cube_of_other_association(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<96x64xf16>
// CHECK-NEXT:     %l = lpu.linear %x by %w : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32>
// CHECK-NEXT:     %h = lpu.constant 5.000000e-01 : tensor<f32>
// CHECK-NEXT:     %0 = lpu.constant 1.000000e+00 : tensor<f32>
// CHECK-NEXT:     %c = lpu.constant 0.797884583 : tensor<f32>
// CHECK-NEXT:     %a = lpu.constant 4.471500e-02 : tensor<f32>
// CHECK-NEXT:     %1 = lpu.mul %l, %h : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
// CHECK-NEXT:     %2 = lpu.mul %l, %l : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
// CHECK-NEXT:     %3 = lpu.mul %2, %l : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
// CHECK-NEXT:     %4 = lpu.mul %2, %a : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
// CHECK-NEXT:     %5 = lpu.add %3, %4 : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
// CHECK-NEXT:     %6 = lpu.mul %5, %c : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
// CHECK-NEXT:     %7 = lpu.tanh %6 : tensor<?x96xf32>
// CHECK-NEXT:     %8 = lpu.add %7, %0 : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
// CHECK-NEXT:     %y = lpu.mul %1, %8 : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
// CHECK-NEXT:     func.return %y : tensor<?x96xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @embedding_used_twice(%i: tensor<?xi64>) -> (tensor<?x64xf32>, tensor<?x64xf32>) {
// CHECK-NEXT:     %t = lpu.weight "embed" : tensor<99x64xf16>
// CHECK-NEXT:     %l = lpu.embedding %t at %i {offset = 2 : i64} : (tensor<99x64xf16>, tensor<?xi64>) -> tensor<?x64xf32>
// CHECK-NEXT:     %k = lpu.constant 8.000000e+00 : tensor<f32>
// CHECK-NEXT:     %y = lpu.mul %l, %k : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y, %l : tensor<?x64xf32>, tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @embedding_times_a_value(%i: tensor<?xi64>, %k: tensor<f32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %t = lpu.weight "embed" : tensor<99x64xf16>
// CHECK-NEXT:     %l = lpu.embedding %t at %i {offset = 2 : i64} : (tensor<99x64xf16>, tensor<?xi64>) -> tensor<?x64xf32>
// CHECK-NEXT:     %y = lpu.mul %l, %k : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
