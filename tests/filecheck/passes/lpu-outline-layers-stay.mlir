// RUN: hyperdex-opt %s -p lpu-outline-layers --split-input-file | filecheck %s
// No chain of layers: KV slots with a gap, a layer whose output others use, a missing number, no attention.

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
  %t1 = lpu.attention %q1, %q1, %k slot 2 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.1.self_attn")
  %c1 = lpu.constant 5.000000e-01 : tensor<f32>
  %m1 = lpu.reshape %t1 : (tensor<?x4x16xf32>) -> tensor<?x64xf32> loc("model.layers.1.self_attn")
  %u1 = lpu.mul %m1, %c1 : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32> loc("model.layers.1.self_attn")
  %h2 = lpu.linear %u1 by %w1 then relu plus %h1 : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32> loc("model.layers.1.fc")
  func.return %h2 : tensor<?x64xf32>
}
// -----
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
  %y = lpu.add %h1, %h2 : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
// -----
func.func @main(%h0: tensor<?x64xf32>, %k: tensor<?x4x16xf32>) -> tensor<?x64xf32> {
  %w0 = lpu.weight "model.layers.0.fc.weight" : tensor<64x64xf16>
  %q0 = lpu.reshape %h0 : (tensor<?x64xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
  %t0 = lpu.attention %q0, %q0, %k slot 0 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
  %c0 = lpu.constant 5.000000e-01 : tensor<f32>
  %m0 = lpu.reshape %t0 : (tensor<?x4x16xf32>) -> tensor<?x64xf32> loc("model.layers.0.self_attn")
  %u0 = lpu.mul %m0, %c0 : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32> loc("model.layers.0.self_attn")
  %h1 = lpu.linear %u0 by %w0 then relu plus %h0 : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32> loc("model.layers.0.fc")
  %w2 = lpu.weight "model.layers.2.fc.weight" : tensor<64x64xf16>
  %q2 = lpu.reshape %h1 : (tensor<?x64xf32>) -> tensor<?x4x16xf32> loc("model.layers.2.self_attn")
  %t2 = lpu.attention %q2, %q2, %k slot 1 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.2.self_attn")
  %c2 = lpu.constant 5.000000e-01 : tensor<f32>
  %m2 = lpu.reshape %t2 : (tensor<?x4x16xf32>) -> tensor<?x64xf32> loc("model.layers.2.self_attn")
  %u2 = lpu.mul %m2, %c2 : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32> loc("model.layers.2.self_attn")
  %h2 = lpu.linear %u2 by %w2 then relu plus %h1 : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32> loc("model.layers.2.fc")
  func.return %h2 : tensor<?x64xf32>
}
// -----
func.func @main(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %y = lpu.silu %x : tensor<?x64xf32> loc("model.layers.0")
  func.return %y : tensor<?x64xf32>
}

// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @main(%h0: tensor<?x64xf32>, %k: tensor<?x4x16xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w0 = lpu.weight "model.layers.0.fc.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %q0 = lpu.reshape %h0 : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %t0 = lpu.attention %q0, %q0, %k slot 0 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %c0 = lpu.constant 5.000000e-01 : tensor<f32>
// CHECK-NEXT:     %m0 = lpu.reshape %t0 : (tensor<?x4x16xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %u0 = lpu.mul %m0, %c0 : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %h1 = lpu.linear %u0 by %w0 then relu plus %h0 : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %w1 = lpu.weight "model.layers.1.fc.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %q1 = lpu.reshape %h1 : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %t1 = lpu.attention %q1, %q1, %k slot 2 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %c1 = lpu.constant 5.000000e-01 : tensor<f32>
// CHECK-NEXT:     %m1 = lpu.reshape %t1 : (tensor<?x4x16xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %u1 = lpu.mul %m1, %c1 : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %h2 = lpu.linear %u1 by %w1 then relu plus %h1 : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %h2 : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @main(%h0: tensor<?x64xf32>, %k: tensor<?x4x16xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w0 = lpu.weight "model.layers.0.fc.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %q0 = lpu.reshape %h0 : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %t0 = lpu.attention %q0, %q0, %k slot 0 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %c0 = lpu.constant 5.000000e-01 : tensor<f32>
// CHECK-NEXT:     %m0 = lpu.reshape %t0 : (tensor<?x4x16xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %u0 = lpu.mul %m0, %c0 : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %h1 = lpu.linear %u0 by %w0 then relu plus %h0 : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %w1 = lpu.weight "model.layers.1.fc.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %q1 = lpu.reshape %h1 : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %t1 = lpu.attention %q1, %q1, %k slot 1 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %c1 = lpu.constant 5.000000e-01 : tensor<f32>
// CHECK-NEXT:     %m1 = lpu.reshape %t1 : (tensor<?x4x16xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %u1 = lpu.mul %m1, %c1 : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %h2 = lpu.linear %u1 by %w1 then relu plus %h1 : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %y = lpu.add %h1, %h2 : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @main(%h0: tensor<?x64xf32>, %k: tensor<?x4x16xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w0 = lpu.weight "model.layers.0.fc.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %q0 = lpu.reshape %h0 : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %t0 = lpu.attention %q0, %q0, %k slot 0 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %c0 = lpu.constant 5.000000e-01 : tensor<f32>
// CHECK-NEXT:     %m0 = lpu.reshape %t0 : (tensor<?x4x16xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %u0 = lpu.mul %m0, %c0 : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %h1 = lpu.linear %u0 by %w0 then relu plus %h0 : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %w2 = lpu.weight "model.layers.2.fc.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %q2 = lpu.reshape %h1 : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %t2 = lpu.attention %q2, %q2, %k slot 1 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %c2 = lpu.constant 5.000000e-01 : tensor<f32>
// CHECK-NEXT:     %m2 = lpu.reshape %t2 : (tensor<?x4x16xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %u2 = lpu.mul %m2, %c2 : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %h2 = lpu.linear %u2 by %w2 then relu plus %h1 : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %h2 : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @main(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %y = lpu.silu %x : tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
