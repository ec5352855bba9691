// RUN: hyperdex-opt %s -p lpu-outline-layers --split-input-file | filecheck %s
// Eight layers of two kinds, a a b a a b a a: nested repeats.

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
  %h3 = lpu.linear %u2 by %w2 then silu plus %h2 : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32> loc("model.layers.2.fc")
  %w3 = lpu.weight "model.layers.3.fc.weight" : tensor<64x64xf16>
  %q3 = lpu.reshape %h3 : (tensor<?x64xf32>) -> tensor<?x4x16xf32> loc("model.layers.3.self_attn")
  %t3 = lpu.attention %q3, %q3, %k slot 3 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.3.self_attn")
  %c3 = lpu.constant 5.000000e-01 : tensor<f32>
  %m3 = lpu.reshape %t3 : (tensor<?x4x16xf32>) -> tensor<?x64xf32> loc("model.layers.3.self_attn")
  %u3 = lpu.mul %m3, %c3 : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32> loc("model.layers.3.self_attn")
  %h4 = lpu.linear %u3 by %w3 then relu plus %h3 : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32> loc("model.layers.3.fc")
  %w4 = lpu.weight "model.layers.4.fc.weight" : tensor<64x64xf16>
  %q4 = lpu.reshape %h4 : (tensor<?x64xf32>) -> tensor<?x4x16xf32> loc("model.layers.4.self_attn")
  %t4 = lpu.attention %q4, %q4, %k slot 4 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.4.self_attn")
  %c4 = lpu.constant 5.000000e-01 : tensor<f32>
  %m4 = lpu.reshape %t4 : (tensor<?x4x16xf32>) -> tensor<?x64xf32> loc("model.layers.4.self_attn")
  %u4 = lpu.mul %m4, %c4 : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32> loc("model.layers.4.self_attn")
  %h5 = lpu.linear %u4 by %w4 then relu plus %h4 : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32> loc("model.layers.4.fc")
  %w5 = lpu.weight "model.layers.5.fc.weight" : tensor<64x64xf16>
  %q5 = lpu.reshape %h5 : (tensor<?x64xf32>) -> tensor<?x4x16xf32> loc("model.layers.5.self_attn")
  %t5 = lpu.attention %q5, %q5, %k slot 5 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.5.self_attn")
  %c5 = lpu.constant 5.000000e-01 : tensor<f32>
  %m5 = lpu.reshape %t5 : (tensor<?x4x16xf32>) -> tensor<?x64xf32> loc("model.layers.5.self_attn")
  %u5 = lpu.mul %m5, %c5 : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32> loc("model.layers.5.self_attn")
  %h6 = lpu.linear %u5 by %w5 then silu plus %h5 : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32> loc("model.layers.5.fc")
  %w6 = lpu.weight "model.layers.6.fc.weight" : tensor<64x64xf16>
  %q6 = lpu.reshape %h6 : (tensor<?x64xf32>) -> tensor<?x4x16xf32> loc("model.layers.6.self_attn")
  %t6 = lpu.attention %q6, %q6, %k slot 6 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.6.self_attn")
  %c6 = lpu.constant 5.000000e-01 : tensor<f32>
  %m6 = lpu.reshape %t6 : (tensor<?x4x16xf32>) -> tensor<?x64xf32> loc("model.layers.6.self_attn")
  %u6 = lpu.mul %m6, %c6 : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32> loc("model.layers.6.self_attn")
  %h7 = lpu.linear %u6 by %w6 then relu plus %h6 : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32> loc("model.layers.6.fc")
  %w7 = lpu.weight "model.layers.7.fc.weight" : tensor<64x64xf16>
  %q7 = lpu.reshape %h7 : (tensor<?x64xf32>) -> tensor<?x4x16xf32> loc("model.layers.7.self_attn")
  %t7 = lpu.attention %q7, %q7, %k slot 7 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.7.self_attn")
  %c7 = lpu.constant 5.000000e-01 : tensor<f32>
  %m7 = lpu.reshape %t7 : (tensor<?x4x16xf32>) -> tensor<?x64xf32> loc("model.layers.7.self_attn")
  %u7 = lpu.mul %m7, %c7 : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32> loc("model.layers.7.self_attn")
  %h8 = lpu.linear %u7 by %w7 then relu plus %h7 : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32> loc("model.layers.7.fc")
  func.return %h8 : tensor<?x64xf32>
}

// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @main(%h0: tensor<?x64xf32>, %k: tensor<?x4x16xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %hidden = lpu.repeat 2 (%hidden_1 = %h0 : tensor<?x64xf32>) {
// CHECK-NEXT:       %hidden_2 = lpu.repeat 2 (%hidden_3 = %hidden_1 : tensor<?x64xf32>) {
// CHECK-NEXT:         %hidden_4 = lpu.layer @model.layers.kind0(%hidden_3, %k) : (tensor<?x64xf32>, tensor<?x4x16xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:         lpu.yield %hidden_4 : tensor<?x64xf32>
// CHECK-NEXT:       }
// CHECK-NEXT:       %hidden_5 = lpu.layer @model.layers.kind1(%hidden_2, %k) : (tensor<?x64xf32>, tensor<?x4x16xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:       lpu.yield %hidden_5 : tensor<?x64xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     %hidden_6 = lpu.repeat 2 (%hidden_7 = %hidden : tensor<?x64xf32>) {
// CHECK-NEXT:       %hidden_8 = lpu.layer @model.layers.kind0(%hidden_7, %k) : (tensor<?x64xf32>, tensor<?x4x16xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:       lpu.yield %hidden_8 : tensor<?x64xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     func.return %hidden_6 : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @model.layers.kind0(%hidden: tensor<?x64xf32>, %k: tensor<?x4x16xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %q0 = lpu.reshape %hidden : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %t0 = lpu.attention %q0, %q0, %k slot 0 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %m0 = lpu.reshape %t0 : (tensor<?x4x16xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %c0 = lpu.constant 5.000000e-01 : tensor<f32>
// CHECK-NEXT:     %u0 = lpu.mul %m0, %c0 : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %w0 = lpu.weight "model.layers.*.fc.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %h1 = lpu.linear %u0 by %w0 then relu plus %hidden : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %h1 : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @model.layers.kind1(%hidden: tensor<?x64xf32>, %k: tensor<?x4x16xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %q2 = lpu.reshape %hidden : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %t2 = lpu.attention %q2, %q2, %k slot 0 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %m2 = lpu.reshape %t2 : (tensor<?x4x16xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %c2 = lpu.constant 5.000000e-01 : tensor<f32>
// CHECK-NEXT:     %u2 = lpu.mul %m2, %c2 : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %w2 = lpu.weight "model.layers.*.fc.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %h3 = lpu.linear %u2 by %w2 then silu plus %hidden : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %h3 : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
