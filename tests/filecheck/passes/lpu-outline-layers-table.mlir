// RUN: hyperdex-opt %s -p lpu-outline-layers --split-input-file | filecheck %s
// Seven layers in an order without a period: a table of function numbers; all functions take what any of them needs.

func.func @main(%h0: tensor<?x4x16xf32>, %k: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
  %h1 = lpu.attention %h0, %h0, %h0 slot 0 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
  %h2 = lpu.attention %h1, %h1, %k slot 1 scale 2.500000e-01 window 5 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.1.self_attn")
  %h3 = lpu.attention %h2, %h2, %k slot 2 scale 2.500000e-01 window 5 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.2.self_attn")
  %h4 = lpu.attention %h3, %h3, %h3 slot 3 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.3.self_attn")
  %h5 = lpu.attention %h4, %h4, %k slot 4 scale 2.500000e-01 window 5 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.4.self_attn")
  %h6 = lpu.attention %h5, %h5, %h5 slot 5 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.5.self_attn")
  %h7 = lpu.attention %h6, %h6, %h6 slot 6 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.6.self_attn")
  func.return %h7 : tensor<?x4x16xf32>
}

// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @main(%h0: tensor<?x4x16xf32>, %k: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %hidden = lpu.layers "model.layers.order" [0, 1, 1, 0, 1, 0, 0] @model.layers.kind0, @model.layers.kind1 (%h0 : tensor<?x4x16xf32>, %k : tensor<?x4x16xf32>)
// CHECK-NEXT:     func.return %hidden : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @model.layers.kind0(%hidden: tensor<?x4x16xf32>, %k: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %h1 = lpu.attention %hidden, %hidden, %hidden slot 0 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %h1 : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @model.layers.kind1(%hidden: tensor<?x4x16xf32>, %k: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %h2 = lpu.attention %hidden, %hidden, %k slot 0 scale 2.500000e-01 window 5 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %h2 : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
