// RUN: hyperdex-opt %s -p lpu-fuse-epilogue --split-input-file --print-debuginfo | filecheck %s
// The first three fuse; the fused linear stands where its last operation stood. The others must stay.

func.func @every_stage(%x: tensor<?x64xf32>, %r: tensor<?x96xf32>, %g: tensor<?x96xf32>) -> tensor<?x96xf32> {
  %w = lpu.weight "a.weight" : tensor<96x64xf16>
  %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32> loc("model.layers.0.mlp.up_proj")
  
  %b = lpu.weight "a.bias" : tensor<96xf32>
  %s = lpu.constant 2.500000e-01 : tensor<f32>
  %c = lpu.constant 3.000000e+01 : tensor<f32>
  %1 = lpu.add %y, %b : (tensor<?x96xf32>, tensor<96xf32>) -> tensor<?x96xf32>
  %2 = lpu.mul %s, %1 : (tensor<f32>, tensor<?x96xf32>) -> tensor<?x96xf32>
  %3 = lpu.div %2, %c : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
  %4 = lpu.tanh %3 : tensor<?x96xf32>
  %5 = lpu.mul %4, %c : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
  %6 = lpu.silu %5 : tensor<?x96xf32>
  %7 = lpu.mul %6, %g : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
  %8 = lpu.add %r, %7 : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
  func.return %8 : tensor<?x96xf32>
}
// -----
func.func @gate_computed_later(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
  %w = lpu.weight "a.weight" : tensor<96x64xf16>
  %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32> loc("model.layers.0.mlp.up_proj")
  
  %v = lpu.weight "b.weight" : tensor<96x64xf16>
  %g = lpu.linear %x by %v : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32> loc("model.layers.0.mlp.gate_proj")
  %a = lpu.silu %y : tensor<?x96xf32>
  %z = lpu.mul %a, %g : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
  func.return %z : tensor<?x96xf32>
}
// -----
func.func @tanh_is_an_activation_too(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
  %w = lpu.weight "a.weight" : tensor<96x64xf16>
  %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32> loc("model.layers.0.mlp.up_proj")
  %z = lpu.tanh %y : tensor<?x96xf32>
  func.return %z : tensor<?x96xf32>
}
// -----
func.func @two_users(%x: tensor<?x64xf32>) -> (tensor<?x96xf32>, tensor<?x96xf32>) {
  %w = lpu.weight "a.weight" : tensor<96x64xf16>
  %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32> loc("model.layers.0.mlp.up_proj")
  %z = lpu.silu %y : tensor<?x96xf32>
  func.return %z, %y : tensor<?x96xf32>, tensor<?x96xf32>
}
// -----
func.func @wrong_order(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
  %w = lpu.weight "a.weight" : tensor<96x64xf16>
  %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32> loc("model.layers.0.mlp.up_proj")
  
  %s = lpu.constant 2.000000e+00 : tensor<f32>
  %a = lpu.relu %y : tensor<?x96xf32>
  %z = lpu.mul %a, %s : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
  func.return %z : tensor<?x96xf32>
}
// -----
func.func @other_caps(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
  %w = lpu.weight "a.weight" : tensor<96x64xf16>
  %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32> loc("model.layers.0.mlp.up_proj")
  
  %s = lpu.constant 2.000000e+00 : tensor<f32>
  %c = lpu.constant 3.000000e+00 : tensor<f32>
  %a = lpu.div %y, %s : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
  %b = lpu.tanh %a : tensor<?x96xf32>
  %z = lpu.mul %b, %c : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32>
  func.return %z : tensor<?x96xf32>
}
// -----
func.func @residual_that_broadcasts(%x: tensor<?x64xf32>, %r: tensor<?x1xf32>) -> tensor<?x96xf32> {
  %w = lpu.weight "a.weight" : tensor<96x64xf16>
  %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32> loc("model.layers.0.mlp.up_proj")
  %z = lpu.add %y, %r : (tensor<?x96xf32>, tensor<?x1xf32>) -> tensor<?x96xf32>
  func.return %z : tensor<?x96xf32>
}
// -----
func.func @number_that_broadcasts(%x: tensor<?x64xf32>, %r: tensor<?x96xf32>) -> tensor<?x96xf32> {
  %w = lpu.weight "a.weight" : tensor<1x64xf16>
  %b = lpu.weight "b.weight" : tensor<96xf32>
  %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<1x64xf16> -> tensor<?x1xf32> loc("model.layers.0.mlp.gate")
  %z = lpu.mul %y, %r : (tensor<?x1xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
  %v = lpu.linear %x by %w : tensor<?x64xf32>, tensor<1x64xf16> -> tensor<?x1xf32> loc("model.layers.0.mlp.gate")
  %a = lpu.add %v, %b : (tensor<?x1xf32>, tensor<96xf32>) -> tensor<?x96xf32>
  %s = lpu.add %z, %a : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
  func.return %s : tensor<?x96xf32>
}
// -----
func.func @subtraction(%x: tensor<?x64xf32>, %r: tensor<?x96xf32>) -> tensor<?x96xf32> {
  %w = lpu.weight "a.weight" : tensor<96x64xf16>
  %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32> loc("model.layers.0.mlp.up_proj")
  %z = lpu.sub %y, %r : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
  func.return %z : tensor<?x96xf32>
}

// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @every_stage(%x: tensor<?x64xf32> loc(unknown), %r: tensor<?x96xf32> loc(unknown), %g: tensor<?x96xf32> loc(unknown)) -> tensor<?x96xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<96x64xf16> loc(unknown)
// CHECK-NEXT:     %b = lpu.weight "a.bias" : tensor<96xf32> loc(unknown)
// CHECK-NEXT:     %0 = lpu.linear %x by %w bias %b : tensor<96xf32> scale 2.500000e-01 softcap 3.000000e+01 then silu times %g plus %r : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32> loc("model.layers.0.mlp.up_proj")
// CHECK-NEXT:     func.return %0 : tensor<?x96xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @gate_computed_later(%x: tensor<?x64xf32> loc(unknown)) -> tensor<?x96xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<96x64xf16> loc(unknown)
// CHECK-NEXT:     %v = lpu.weight "b.weight" : tensor<96x64xf16> loc(unknown)
// CHECK-NEXT:     %g = lpu.linear %x by %v : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32> loc("model.layers.0.mlp.gate_proj")
// CHECK-NEXT:     %z = lpu.linear %x by %w then silu times %g : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32> loc("model.layers.0.mlp.up_proj")
// CHECK-NEXT:     func.return %z : tensor<?x96xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @tanh_is_an_activation_too(%x: tensor<?x64xf32> loc(unknown)) -> tensor<?x96xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<96x64xf16> loc(unknown)
// CHECK-NEXT:     %z = lpu.linear %x by %w then tanh : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32> loc("model.layers.0.mlp.up_proj")
// CHECK-NEXT:     func.return %z : tensor<?x96xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @two_users(%x: tensor<?x64xf32> loc(unknown)) -> (tensor<?x96xf32>, tensor<?x96xf32>) {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<96x64xf16> loc(unknown)
// CHECK-NEXT:     %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32> loc("model.layers.0.mlp.up_proj")
// CHECK-NEXT:     %z = lpu.silu %y : tensor<?x96xf32> loc(unknown)
// CHECK-NEXT:     func.return %z, %y : tensor<?x96xf32>, tensor<?x96xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @wrong_order(%x: tensor<?x64xf32> loc(unknown)) -> tensor<?x96xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<96x64xf16> loc(unknown)
// CHECK-NEXT:     %s = lpu.constant 2.000000e+00 : tensor<f32> loc(unknown)
// CHECK-NEXT:     %a = lpu.linear %x by %w then relu : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32> loc("model.layers.0.mlp.up_proj")
// CHECK-NEXT:     %z = lpu.mul %a, %s : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32> loc(unknown)
// CHECK-NEXT:     func.return %z : tensor<?x96xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @other_caps(%x: tensor<?x64xf32> loc(unknown)) -> tensor<?x96xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<96x64xf16> loc(unknown)
// CHECK-NEXT:     %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32> loc("model.layers.0.mlp.up_proj")
// CHECK-NEXT:     %s = lpu.constant 2.000000e+00 : tensor<f32> loc(unknown)
// CHECK-NEXT:     %c = lpu.constant 3.000000e+00 : tensor<f32> loc(unknown)
// CHECK-NEXT:     %a = lpu.div %y, %s : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32> loc(unknown)
// CHECK-NEXT:     %b = lpu.tanh %a : tensor<?x96xf32> loc(unknown)
// CHECK-NEXT:     %z = lpu.mul %b, %c : (tensor<?x96xf32>, tensor<f32>) -> tensor<?x96xf32> loc(unknown)
// CHECK-NEXT:     func.return %z : tensor<?x96xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @residual_that_broadcasts(%x: tensor<?x64xf32> loc(unknown), %r: tensor<?x1xf32> loc(unknown)) -> tensor<?x96xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<96x64xf16> loc(unknown)
// CHECK-NEXT:     %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32> loc("model.layers.0.mlp.up_proj")
// CHECK-NEXT:     %z = lpu.add %y, %r : (tensor<?x96xf32>, tensor<?x1xf32>) -> tensor<?x96xf32> loc(unknown)
// CHECK-NEXT:     func.return %z : tensor<?x96xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @number_that_broadcasts(%x: tensor<?x64xf32> loc(unknown), %r: tensor<?x96xf32> loc(unknown)) -> tensor<?x96xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<1x64xf16> loc(unknown)
// CHECK-NEXT:     %b = lpu.weight "b.weight" : tensor<96xf32> loc(unknown)
// CHECK-NEXT:     %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<1x64xf16> -> tensor<?x1xf32> loc("model.layers.0.mlp.gate")
// CHECK-NEXT:     %z = lpu.mul %y, %r : (tensor<?x1xf32>, tensor<?x96xf32>) -> tensor<?x96xf32> loc(unknown)
// CHECK-NEXT:     %v = lpu.linear %x by %w : tensor<?x64xf32>, tensor<1x64xf16> -> tensor<?x1xf32> loc("model.layers.0.mlp.gate")
// CHECK-NEXT:     %a = lpu.add %v, %b : (tensor<?x1xf32>, tensor<96xf32>) -> tensor<?x96xf32> loc(unknown)
// CHECK-NEXT:     %s = lpu.add %z, %a : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32> loc(unknown)
// CHECK-NEXT:     func.return %s : tensor<?x96xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @subtraction(%x: tensor<?x64xf32> loc(unknown), %r: tensor<?x96xf32> loc(unknown)) -> tensor<?x96xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<96x64xf16> loc(unknown)
// CHECK-NEXT:     %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32> loc("model.layers.0.mlp.up_proj")
// CHECK-NEXT:     %z = lpu.sub %y, %r : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32> loc(unknown)
// CHECK-NEXT:     func.return %z : tensor<?x96xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
