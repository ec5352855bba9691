// RUN: hyperdex-opt %s -p lpu-outline-layers --split-input-file | filecheck %s
// Constants that differ become numbers of the layers, the sign of zero included; one constant used twice may differ in one
// place only; a parameter that all share keeps its key. A scale of attention is part of the function.

func.func @main(%h0: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
  %c00 = lpu.constant 5.0e-01 : tensor<f32>
  %m00 = lpu.mul %h0, %c00 : (tensor<?x4x16xf32>, tensor<f32>) -> tensor<?x4x16xf32> loc("model.layers.0.mlp")
  %c01 = lpu.constant 2.0 : tensor<f32>
  %m01 = lpu.mul %m00, %c01 : (tensor<?x4x16xf32>, tensor<f32>) -> tensor<?x4x16xf32> loc("model.layers.0.mlp")
  %c02 = lpu.constant 0.0 : tensor<f32>
  %m02 = lpu.mul %m01, %c02 : (tensor<?x4x16xf32>, tensor<f32>) -> tensor<?x4x16xf32> loc("model.layers.0.mlp")
  %h1 = lpu.attention %m02, %m02, %m02 slot 0 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
  %c10 = lpu.constant 2.5e-01 : tensor<f32>
  %m10 = lpu.mul %h1, %c10 : (tensor<?x4x16xf32>, tensor<f32>) -> tensor<?x4x16xf32> loc("model.layers.1.mlp")
  %c11 = lpu.constant 2.0 : tensor<f32>
  %m11 = lpu.mul %m10, %c11 : (tensor<?x4x16xf32>, tensor<f32>) -> tensor<?x4x16xf32> loc("model.layers.1.mlp")
  %c12 = lpu.constant -0.0 : tensor<f32>
  %m12 = lpu.mul %m11, %c12 : (tensor<?x4x16xf32>, tensor<f32>) -> tensor<?x4x16xf32> loc("model.layers.1.mlp")
  %h2 = lpu.attention %m12, %m12, %m12 slot 1 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.1.self_attn")
  %c20 = lpu.constant 1.25e-01 : tensor<f32>
  %m20 = lpu.mul %h2, %c20 : (tensor<?x4x16xf32>, tensor<f32>) -> tensor<?x4x16xf32> loc("model.layers.2.mlp")
  %c21 = lpu.constant 2.0 : tensor<f32>
  %m21 = lpu.mul %m20, %c21 : (tensor<?x4x16xf32>, tensor<f32>) -> tensor<?x4x16xf32> loc("model.layers.2.mlp")
  %c22 = lpu.constant 0.0 : tensor<f32>
  %m22 = lpu.mul %m21, %c22 : (tensor<?x4x16xf32>, tensor<f32>) -> tensor<?x4x16xf32> loc("model.layers.2.mlp")
  %h3 = lpu.attention %m22, %m22, %m22 slot 2 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.2.self_attn")
  func.return %h3 : tensor<?x4x16xf32>
}
// -----
func.func @main(%h0: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
  %c = lpu.constant 2.0 : tensor<f32>
  %d = lpu.constant 3.0 : tensor<f32>
  %g = lpu.weight "shared" : tensor<16xf32>
  %a0 = lpu.mul %h0, %c : (tensor<?x4x16xf32>, tensor<f32>) -> tensor<?x4x16xf32> loc("model.layers.0.mlp")
  %b0 = lpu.add %a0, %c : (tensor<?x4x16xf32>, tensor<f32>) -> tensor<?x4x16xf32> loc("model.layers.0.mlp")
  %e0 = lpu.mul %b0, %g : (tensor<?x4x16xf32>, tensor<16xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.mlp")
  %h1 = lpu.attention %e0, %e0, %e0 slot 0 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
  %a1 = lpu.mul %h1, %c : (tensor<?x4x16xf32>, tensor<f32>) -> tensor<?x4x16xf32> loc("model.layers.1.mlp")
  %b1 = lpu.add %a1, %d : (tensor<?x4x16xf32>, tensor<f32>) -> tensor<?x4x16xf32> loc("model.layers.1.mlp")
  %e1 = lpu.mul %b1, %g : (tensor<?x4x16xf32>, tensor<16xf32>) -> tensor<?x4x16xf32> loc("model.layers.1.mlp")
  %h2 = lpu.attention %e1, %e1, %e1 slot 1 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.1.self_attn")
  func.return %h2 : tensor<?x4x16xf32>
}
// -----
func.func @main(%h0: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
  %h1 = lpu.attention %h0, %h0, %h0 slot 0 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
  %h2 = lpu.attention %h1, %h1, %h1 slot 1 scale 5.000000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.1.self_attn")
  %h3 = lpu.attention %h2, %h2, %h2 slot 2 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.2.self_attn")
  func.return %h3 : tensor<?x4x16xf32>
}

// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @main(%h0: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %hidden = lpu.repeat 3 (%hidden_1 = %h0 : tensor<?x4x16xf32>) {
// CHECK-NEXT:       %hidden_2 = lpu.layer @model.layers(%hidden_1) : (tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:       lpu.yield %hidden_2 : tensor<?x4x16xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     func.return %hidden : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @model.layers(%hidden: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %0 = lpu.layer_constant "model.layers.*.mlp.constant0" [0.5, 0.25, 0.125] : tensor<f32>
// CHECK-NEXT:     %m00 = lpu.mul %hidden, %0 : (tensor<?x4x16xf32>, tensor<f32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %c01 = lpu.constant 2.000000e+00 : tensor<f32>
// CHECK-NEXT:     %m01 = lpu.mul %m00, %c01 : (tensor<?x4x16xf32>, tensor<f32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %1 = lpu.layer_constant "model.layers.*.mlp.constant1" [0.0, -0.0, 0.0] : tensor<f32>
// CHECK-NEXT:     %m02 = lpu.mul %m01, %1 : (tensor<?x4x16xf32>, tensor<f32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %h1 = lpu.attention %m02, %m02, %m02 slot 0 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %h1 : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }

// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @main(%h0: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %hidden = lpu.repeat 2 (%hidden_1 = %h0 : tensor<?x4x16xf32>) {
// CHECK-NEXT:       %hidden_2 = lpu.layer @model.layers(%hidden_1) : (tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:       lpu.yield %hidden_2 : tensor<?x4x16xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     func.return %hidden : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @model.layers(%hidden: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %c = lpu.constant 2.000000e+00 : tensor<f32>
// CHECK-NEXT:     %a0 = lpu.mul %hidden, %c : (tensor<?x4x16xf32>, tensor<f32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %0 = lpu.layer_constant "model.layers.*.mlp.constant0" [2.0, 3.0] : tensor<f32>
// CHECK-NEXT:     %b0 = lpu.add %a0, %0 : (tensor<?x4x16xf32>, tensor<f32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %g = lpu.weight "shared" : tensor<16xf32>
// CHECK-NEXT:     %e0 = lpu.mul %b0, %g : (tensor<?x4x16xf32>, tensor<16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %h1 = lpu.attention %e0, %e0, %e0 slot 0 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %h1 : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }

// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @main(%h0: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %hidden = lpu.layer @model.layers.kind0(%h0) : (tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %hidden_1 = lpu.layer @model.layers.kind1(%hidden) : (tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %hidden_2 = lpu.layer @model.layers.kind0(%hidden_1) : (tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %hidden_2 : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @model.layers.kind0(%hidden: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %h1 = lpu.attention %hidden, %hidden, %hidden slot 0 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %h1 : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @model.layers.kind1(%hidden: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %h2 = lpu.attention %hidden, %hidden, %hidden slot 0 scale 5.000000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %h2 : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
