// RUN: hyperdex-opt %s -p 'lpu-propagate-sharding,lpu-partition' | filecheck %s
// Short convolutions, each channel by itself.

// 9 channels on two devices: 5 each, taps and bias by channel; the output matrix has it whole.
builtin.module attributes {lpu.grid = #lpu.grid<2>} {
func.func @conv(%x: tensor<?x16xf32>) -> tensor<?x16xf32> {
  %wi = lpu.weight "in.weight" : tensor<18x16xf16>
  %w = lpu.weight "conv.weight" : tensor<9x1x3xf32>
  %b = lpu.weight "conv.bias" : tensor<9xf32>
  %wo = lpu.weight "out.weight" : tensor<16x9xf16>
  %p = lpu.linear %x by %wi : tensor<?x16xf32>, tensor<18x16xf16> -> tensor<?x18xf32>
  %g = lpu.slice %p dim 1 from 0 to 9 : (tensor<?x18xf32>) -> tensor<?x9xf32>
  %u = lpu.slice %p dim 1 from 9 to 18 : (tensor<?x18xf32>) -> tensor<?x9xf32>
  %m = lpu.mul %g, %u : (tensor<?x9xf32>, tensor<?x9xf32>) -> tensor<?x9xf32>
  %c = lpu.short_conv %m by %w bias %b : tensor<9xf32> slot 0 : tensor<9x1x3xf32> -> tensor<?x9xf32>
  %y = lpu.linear %c by %wo : tensor<?x9xf32>, tensor<16x9xf16> -> tensor<?x16xf32>
  func.return %y : tensor<?x16xf32>
}
}

// CHECK:      builtin.module attributes {lpu.grid = #lpu.grid<2>} {
// CHECK-NEXT:   func.func @conv(%x: tensor<?x16xf32>) -> tensor<?x16xf32> {
// CHECK-NEXT:     %wi = lpu.weight "weight", "weight" in "in" shards [#lpu.sharding<0, 5 of 9 at [0, 5]>, #lpu.sharding<0, 5 of 18 at [9, 14]>] : tensor<10x16xf16>
// CHECK-NEXT:     %w = lpu.weight "conv.weight" shards [#lpu.sharding<0, 5 of 9 at [0, 5]>] : tensor<5x1x3xf32>
// CHECK-NEXT:     %b = lpu.weight "conv.bias" shards [#lpu.sharding<0, 5 of 9 at [0, 5]>] : tensor<5xf32>
// CHECK-NEXT:     %wo = lpu.weight "out.weight" shards [#lpu.sharding<0, 8 of 16 at [0, 8]>] : tensor<8x9xf16>
// CHECK-NEXT:     %p = lpu.linear %x by %wi : tensor<?x16xf32>, tensor<10x16xf16> -> tensor<?x10xf32>
// CHECK-NEXT:     %g = lpu.slice %p dim 1 from 0 to 5 : (tensor<?x10xf32>) -> tensor<?x5xf32>
// CHECK-NEXT:     %u = lpu.slice %p dim 1 from 5 to 10 : (tensor<?x10xf32>) -> tensor<?x5xf32>
// CHECK-NEXT:     %m = lpu.mul %g, %u : (tensor<?x5xf32>, tensor<?x5xf32>) -> tensor<?x5xf32>
// CHECK-NEXT:     %c = lpu.short_conv %m by %w bias %b : tensor<5xf32> slot 0 : tensor<5x1x3xf32> -> tensor<?x5xf32>
// CHECK-NEXT:     %c_1 = lpu.all_gather %c over 2 : (tensor<?x5xf32>) -> tensor<?x9xf32>
// CHECK-NEXT:     %y = lpu.linear %c_1 by %wo : tensor<?x9xf32>, tensor<8x9xf16> -> tensor<?x8xf32>
// CHECK-NEXT:     %y_1 = lpu.all_gather %y over 2 : (tensor<?x8xf32>) -> tensor<?x16xf32>
// CHECK-NEXT:     func.return %y_1 : tensor<?x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
