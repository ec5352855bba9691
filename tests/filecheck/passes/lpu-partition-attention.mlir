// RUN: hyperdex-opt %s -p 'lpu-propagate-sharding' | filecheck %s --check-prefix=PROPAGATE
// RUN: hyperdex-opt %s -p 'lpu-propagate-sharding,lpu-partition' | filecheck %s
// Slopes and sinks go with the query heads; the last device has one head and padding, of zeros.

builtin.module attributes {lpu.grid = #lpu.grid<4>} {
  func.func @attention(%q: tensor<?x7x8xf32>) -> tensor<?x7x8xf32> {
    %slopes = lpu.weight "slopes" : tensor<7xf32>
    %sinks = lpu.weight "layers.*.sinks" : tensor<7xf32>
    %a = lpu.attention %q, %q, %q slot 0 scale 1.000000e+00 slopes %slopes : tensor<7xf32> sinks %sinks : tensor<7xf32> : (tensor<?x7x8xf32>, tensor<?x7x8xf32>, tensor<?x7x8xf32>) -> tensor<?x7x8xf32>
    func.return %a : tensor<?x7x8xf32>
  }
}

// PROPAGATE:      builtin.module attributes {lpu.grid = #lpu.grid<4>} {
// PROPAGATE-NEXT:   func.func @attention(%q: tensor<?x7x8xf32>) -> tensor<?x7x8xf32> {
// PROPAGATE-NEXT:     %slopes = lpu.weight "slopes" {lpu.sharding = #lpu.sharding<0, 2 of 7 at [0, 2, 4, 6]>} : tensor<7xf32>
// PROPAGATE-NEXT:     %sinks = lpu.weight "layers.*.sinks" {lpu.sharding = #lpu.sharding<0, 2 of 7 at [0, 2, 4, 6]>} : tensor<7xf32>
// PROPAGATE-NEXT:     %a = lpu.attention %q, %q, %q slot 0 scale 1.000000e+00 slopes %slopes : tensor<7xf32> sinks %sinks : tensor<7xf32> {lpu.sharding = #lpu.sharding<1, 2 of 7 at [0, 2, 4, 6]>} : (tensor<?x7x8xf32>, tensor<?x7x8xf32>, tensor<?x7x8xf32>) -> tensor<?x7x8xf32>
// PROPAGATE-NEXT:     func.return %a : tensor<?x7x8xf32>
// PROPAGATE-NEXT:   }
// PROPAGATE-NEXT: }

// CHECK:      builtin.module attributes {lpu.grid = #lpu.grid<4>} {
// CHECK-NEXT:   func.func @attention(%q: tensor<?x7x8xf32>) -> tensor<?x7x8xf32> {
// CHECK-NEXT:     %slopes = lpu.weight "slopes" shards [#lpu.sharding<0, 2 of 7 at [0, 2, 4, 6]>] : tensor<2xf32>
// CHECK-NEXT:     %sinks = lpu.weight "layers.*.sinks" shards [#lpu.sharding<0, 2 of 7 at [0, 2, 4, 6]>] : tensor<2xf32>
// CHECK-NEXT:     %q_1 = lpu.reshape %q : (tensor<?x7x8xf32>) -> tensor<?x56xf32>
// CHECK-NEXT:     %q_2 = lpu.select_columns %q_1 : (tensor<?x56xf32>) -> tensor<?x16xf32>
// CHECK-NEXT:     %q_3 = lpu.reshape %q_2 : (tensor<?x16xf32>) -> tensor<?x2x8xf32>
// CHECK-NEXT:     %a = lpu.attention %q_3, %q_3, %q_3 slot 0 scale 1.000000e+00 slopes %slopes : tensor<2xf32> sinks %sinks : tensor<2xf32> : (tensor<?x2x8xf32>, tensor<?x2x8xf32>, tensor<?x2x8xf32>) -> tensor<?x2x8xf32>
// CHECK-NEXT:     %a_1 = lpu.reshape %a : (tensor<?x2x8xf32>) -> tensor<?x16xf32>
// CHECK-NEXT:     %a_2 = lpu.all_gather %a_1 over 4 : (tensor<?x16xf32>) -> tensor<?x56xf32>
// CHECK-NEXT:     %a_3 = lpu.reshape %a_2 : (tensor<?x56xf32>) -> tensor<?x7x8xf32>
// CHECK-NEXT:     func.return %a_3 : tensor<?x7x8xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
