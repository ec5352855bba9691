// RUN: hyperdex-opt %s -p "lpu-propagate-sharding,lpu-partition" | filecheck %s
// Columns are chosen among all of them, on every device.

builtin.module attributes {lpu.grid = #lpu.grid<2>} {
  func.func @main(%s: tensor<?x6xf32>) -> tensor<?x2xf32> {
    %w = lpu.weight "router" : tensor<6x6xf16>
    %l = lpu.linear %s by %w : tensor<?x6xf32>, tensor<6x6xf16> -> tensor<?x6xf32>
    %i = lpu.top_k %l k 2 : (tensor<?x6xf32>) -> tensor<?x2xi64>
    %v = lpu.take_columns %l at %i : (tensor<?x6xf32>, tensor<?x2xi64>) -> tensor<?x2xf32>
    func.return %v : tensor<?x2xf32>
  }
}

// CHECK: builtin.module attributes {lpu.grid = #lpu.grid<2>} {
// CHECK-NEXT:   func.func @main(%s: tensor<?x6xf32>) -> tensor<?x2xf32> {
// CHECK-NEXT:     %w = lpu.weight "router" shards [#lpu.sharding<0, 3 of 6 at [0, 3]>] : tensor<3x6xf16>
// CHECK-NEXT:     %l = lpu.linear %s by %w : tensor<?x6xf32>, tensor<3x6xf16> -> tensor<?x3xf32>
// CHECK-NEXT:     %l_1 = lpu.all_gather %l over 2 : (tensor<?x3xf32>) -> tensor<?x6xf32>
// CHECK-NEXT:     %i = lpu.top_k %l_1 k 2 : (tensor<?x6xf32>) -> tensor<?x2xi64>
// CHECK-NEXT:     %v = lpu.take_columns %l_1 at %i : (tensor<?x6xf32>, tensor<?x2xi64>) -> tensor<?x2xf32>
// CHECK-NEXT:     func.return %v : tensor<?x2xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
