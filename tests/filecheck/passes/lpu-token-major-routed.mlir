// RUN: hyperdex-opt %s -p lpu-token-major | filecheck %s
// Routing works row by row, and stays as it is.

func.func @main(%x: tensor<1x?x6xf32>) -> tensor<?x6xf32> {
  %s = lpu.reshape %x : (tensor<1x?x6xf32>) -> tensor<?x6xf32>
  %i = lpu.top_k %s k 2 : (tensor<?x6xf32>) -> tensor<?x2xi64>
  %v = lpu.take_columns %s at %i : (tensor<?x6xf32>, tensor<?x2xi64>) -> tensor<?x2xf32>
  %w = lpu.weight "w" : tensor<6x6x6xf16>
  %y = lpu.expert_linear %s by %w at %i sum %v : tensor<?x2xf32> : tensor<?x6xf32>, tensor<6x6x6xf16>, tensor<?x2xi64> -> tensor<?x6xf32>
  func.return %y : tensor<?x6xf32>
}

// CHECK: builtin.module {
// CHECK-NEXT:   func.func @main(%x: tensor<?x6xf32>) -> tensor<?x6xf32> {
// CHECK-NEXT:     %i = lpu.top_k %x k 2 : (tensor<?x6xf32>) -> tensor<?x2xi64>
// CHECK-NEXT:     %v = lpu.take_columns %x at %i : (tensor<?x6xf32>, tensor<?x2xi64>) -> tensor<?x2xf32>
// CHECK-NEXT:     %w = lpu.weight "w" : tensor<6x6x6xf16>
// CHECK-NEXT:     %y = lpu.expert_linear %x by %w at %i sum %v : tensor<?x2xf32> : tensor<?x6xf32>, tensor<6x6x6xf16>, tensor<?x2xi64> -> tensor<?x6xf32>
// CHECK-NEXT:     func.return %y : tensor<?x6xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
