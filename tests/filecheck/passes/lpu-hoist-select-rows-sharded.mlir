// RUN: hyperdex-opt %s -p lpu-hoist-select-rows | filecheck %s
// Rows are selected before parts are gathered and columns selected: fewer words travel.

func.func @above_collectives(%x: tensor<?x64xf32>) -> tensor<?x99xf32> {
  %w = lpu.weight "out.weight" shards [#lpu.sharding<0, 16 of 32 at [0, 16]>] : tensor<16x64xf16>
  %h = lpu.weight "lm_head.weight" shards [#lpu.sharding<0, 50 of 99 at [0, 50]>] : tensor<50x32xf16>
  %n = lpu.select_columns %x : (tensor<?x64xf32>) -> tensor<?x32xf32>
  %m = lpu.all_gather %n over 2 : (tensor<?x32xf32>) -> tensor<?x64xf32>
  %y = lpu.linear %m by %w : tensor<?x64xf32>, tensor<16x64xf16> -> tensor<?x16xf32>
  %g = lpu.all_gather %y over 2 : (tensor<?x16xf32>) -> tensor<?x32xf32>
  %l = lpu.linear %g by %h : tensor<?x32xf32>, tensor<50x32xf16> -> tensor<?x50xf32>
  %z = lpu.all_gather %l over 2 : (tensor<?x50xf32>) -> tensor<?x99xf32>
  %r = lpu.select_rows %z : tensor<?x99xf32>
  func.return %r : tensor<?x99xf32>
}

// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @above_collectives(%x: tensor<?x64xf32>) -> tensor<?x99xf32> {
// CHECK-NEXT:     %w = lpu.weight "out.weight" shards [#lpu.sharding<0, 16 of 32 at [0, 16]>] : tensor<16x64xf16>
// CHECK-NEXT:     %h = lpu.weight "lm_head.weight" shards [#lpu.sharding<0, 50 of 99 at [0, 50]>] : tensor<50x32xf16>
// CHECK-NEXT:     %0 = lpu.select_rows %x : tensor<?x64xf32>
// CHECK-NEXT:     %n = lpu.select_columns %0 : (tensor<?x64xf32>) -> tensor<?x32xf32>
// CHECK-NEXT:     %m = lpu.all_gather %n over 2 : (tensor<?x32xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %y = lpu.linear %m by %w : tensor<?x64xf32>, tensor<16x64xf16> -> tensor<?x16xf32>
// CHECK-NEXT:     %g = lpu.all_gather %y over 2 : (tensor<?x16xf32>) -> tensor<?x32xf32>
// CHECK-NEXT:     %l = lpu.linear %g by %h : tensor<?x32xf32>, tensor<50x32xf16> -> tensor<?x50xf32>
// CHECK-NEXT:     %z = lpu.all_gather %l over 2 : (tensor<?x50xf32>) -> tensor<?x99xf32>
// CHECK-NEXT:     func.return %z : tensor<?x99xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
