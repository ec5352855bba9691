// RUN: hyperdex-opt %s -p lpu-outline-layers --split-input-file --print-debuginfo | filecheck %s
// Three equal layers: one function, one call, a repeat. Constants and parameters are in the function, `*` for the number.

func.func @main(%h0: tensor<?x64xf32>, %k: tensor<?x4x16xf32>) -> tensor<?x64xf32> {
  %w0 = lpu.weight "model.layers.0.fc.weight" : tensor<64x64xf16>
  %q0 = lpu.reshape %h0 : (tensor<?x64xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
  %t0 = lpu.attention %q0, %q0, %k slot 0 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
  %c0 = lpu.constant 5.000000e-01 : tensor<f32>
  %m0 = lpu.reshape %t0 : (tensor<?x4x16xf32>) -> tensor<?x64xf32> loc("model.layers.0.self_attn")
  %u0 = lpu.mul %m0, %c0 : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32> loc("model.layers.0.self_attn")
  %h1 = lpu.linear %u0 by %w0 then relu plus %h0 : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32> loc("model.layers.0.fc")
  %w1 = lpu.weight "model.layers.1.fc.weight" : tensor<64x64xf16>
  %q1 = lpu.reshape %h1 : (tensor<?x64xf32>) -> tensor<?x4x16xf32> loc("model.layers.1.self_attn")
  %t1 = lpu.attention %q1, %q1, %k slot 1 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.1.self_attn")
  %c1 = lpu.constant 5.000000e-01 : tensor<f32>
  %m1 = lpu.reshape %t1 : (tensor<?x4x16xf32>) -> tensor<?x64xf32> loc("model.layers.1.self_attn")
  %u1 = lpu.mul %m1, %c1 : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32> loc("model.layers.1.self_attn")
  %h2 = lpu.linear %u1 by %w1 then relu plus %h1 : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32> loc("model.layers.1.fc")
  %w2 = lpu.weight "model.layers.2.fc.weight" : tensor<64x64xf16>
  %q2 = lpu.reshape %h2 : (tensor<?x64xf32>) -> tensor<?x4x16xf32> loc("model.layers.2.self_attn")
  %t2 = lpu.attention %q2, %q2, %k slot 2 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.2.self_attn")
  %c2 = lpu.constant 5.000000e-01 : tensor<f32>
  %m2 = lpu.reshape %t2 : (tensor<?x4x16xf32>) -> tensor<?x64xf32> loc("model.layers.2.self_attn")
  %u2 = lpu.mul %m2, %c2 : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32> loc("model.layers.2.self_attn")
  %h3 = lpu.linear %u2 by %w2 then relu plus %h2 : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32> loc("model.layers.2.fc")
  %y = lpu.silu %h3 : tensor<?x64xf32> loc("model.norm")
  func.return %y : tensor<?x64xf32>
}

// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @main(%h0: tensor<?x64xf32> loc(unknown), %k: tensor<?x4x16xf32> loc(unknown)) -> tensor<?x64xf32> {
// CHECK-NEXT:     %hidden = lpu.repeat 3 (%hidden_1 = %h0 : tensor<?x64xf32>) {
// CHECK-NEXT:       %hidden_2 = lpu.layer @model.layers(%hidden_1, %k) : (tensor<?x64xf32>, tensor<?x4x16xf32>) -> tensor<?x64xf32> loc("model.layers")
// CHECK-NEXT:       lpu.yield %hidden_2 : tensor<?x64xf32> loc("model.layers")
// CHECK-NEXT:     } loc("model.layers")
// CHECK-NEXT:     %y = lpu.silu %hidden : tensor<?x64xf32> loc("model.norm")
// CHECK-NEXT:     func.return %y : tensor<?x64xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT:   func.func @model.layers(%hidden: tensor<?x64xf32> loc(unknown), %k: tensor<?x4x16xf32> loc(unknown)) -> tensor<?x64xf32> {
// CHECK-NEXT:     %q0 = lpu.reshape %hidden : (tensor<?x64xf32>) -> tensor<?x4x16xf32> loc("model.layers.*.self_attn")
// CHECK-NEXT:     %t0 = lpu.attention %q0, %q0, %k slot 0 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.*.self_attn")
// CHECK-NEXT:     %m0 = lpu.reshape %t0 : (tensor<?x4x16xf32>) -> tensor<?x64xf32> loc("model.layers.*.self_attn")
// CHECK-NEXT:     %c0 = lpu.constant 5.000000e-01 : tensor<f32> loc("model.layers.*.self_attn")
// CHECK-NEXT:     %u0 = lpu.mul %m0, %c0 : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32> loc("model.layers.*.self_attn")
// CHECK-NEXT:     %w0 = lpu.weight "model.layers.*.fc.weight" : tensor<64x64xf16> loc(unknown)
// CHECK-NEXT:     %h1 = lpu.linear %u0 by %w0 then relu plus %hidden : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32> loc("model.layers.*.fc")
// CHECK-NEXT:     func.return %h1 : tensor<?x64xf32> loc("model.layers")
// CHECK-NEXT:   } loc("model.layers")
// CHECK-NEXT: } loc(unknown)
