// RUN: hyperdex-opt %s -p "lpu-propagate-sharding,lpu-partition" | filecheck %s
// Each device has a block of every expert's columns, with their gates; the choice of experts is the same on all.

builtin.module attributes {lpu.grid = #lpu.grid<2>} {
  func.func @main(%x: tensor<?x7xf32>, %i: tensor<?x3xi64>, %v: tensor<?x3xf32>) -> tensor<?x9xf32> {
    %u = lpu.weight "up" : tensor<4x10x7xf16>
    %ub = lpu.weight "up_bias" : tensor<4x10xf32>
    %h = lpu.expert_linear %x by %u at %i gated bias %ub : tensor<4x10xf32> then silu : tensor<?x7xf32>, tensor<4x10x7xf16>, tensor<?x3xi64> -> tensor<?x5x3xf32>
    %d = lpu.weight "down" : tensor<4x9x5xf16>
    %y = lpu.expert_linear %h by %d at %i sum %v : tensor<?x3xf32> : tensor<?x5x3xf32>, tensor<4x9x5xf16>, tensor<?x3xi64> -> tensor<?x9xf32>
    func.return %y : tensor<?x9xf32>
  }
}

// CHECK: builtin.module attributes {lpu.grid = #lpu.grid<2>} {
// CHECK-NEXT:   func.func @main(%x: tensor<?x7xf32>, %i: tensor<?x3xi64>, %v: tensor<?x3xf32>) -> tensor<?x9xf32> {
// CHECK-NEXT:     %u = lpu.weight "up", "up" shards [#lpu.sharding<1, 3 of 5 at [0, 3]>, #lpu.sharding<1, 3 of 10 at [5, 8]>] : tensor<4x6x7xf16>
// CHECK-NEXT:     %ub = lpu.weight "up_bias", "up_bias" shards [#lpu.sharding<1, 3 of 5 at [0, 3]>, #lpu.sharding<1, 3 of 10 at [5, 8]>] : tensor<4x6xf32>
// CHECK-NEXT:     %h = lpu.expert_linear %x by %u at %i gated bias %ub : tensor<4x6xf32> then silu : tensor<?x7xf32>, tensor<4x6x7xf16>, tensor<?x3xi64> -> tensor<?x3x3xf32>
// CHECK-NEXT:     %h_1 = lpu.reshape %h : (tensor<?x3x3xf32>) -> tensor<?x9xf32>
// CHECK-NEXT:     %h_2 = lpu.all_gather %h_1 over 2 : (tensor<?x9xf32>) -> tensor<?x15xf32>
// CHECK-NEXT:     %h_3 = lpu.reshape %h_2 : (tensor<?x15xf32>) -> tensor<?x5x3xf32>
// CHECK-NEXT:     %d = lpu.weight "down" shards [#lpu.sharding<1, 5 of 9 at [0, 5]>] : tensor<4x5x5xf16>
// CHECK-NEXT:     %y = lpu.expert_linear %h_3 by %d at %i sum %v : tensor<?x3xf32> : tensor<?x5x3xf32>, tensor<4x5x5xf16>, tensor<?x3xi64> -> tensor<?x5xf32>
// CHECK-NEXT:     %y_1 = lpu.all_gather %y over 2 : (tensor<?x5xf32>) -> tensor<?x9xf32>
// CHECK-NEXT:     func.return %y_1 : tensor<?x9xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
