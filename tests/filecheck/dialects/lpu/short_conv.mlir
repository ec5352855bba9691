// RUN: hyperdex-opt %s | hyperdex-opt | filecheck %s
// RUN: hyperdex-opt %s --print-op-generic | hyperdex-opt | filecheck %s

func.func @short(%x: tensor<?x7xf32>, %w: tensor<7x1x3xf32>, %b: tensor<7xf32>) -> tensor<?x7xf32> {
  %y = lpu.short_conv %x by %w slot 0 : tensor<7x1x3xf32> -> tensor<?x7xf32>
  %z = lpu.short_conv %y by %w bias %b : tensor<7xf32> slot 1 : tensor<7x1x3xf32> -> tensor<?x7xf32>
  func.return %z : tensor<?x7xf32>
}

// CHECK:         %y = lpu.short_conv %x by %w slot 0 : tensor<7x1x3xf32> -> tensor<?x7xf32>
// CHECK-NEXT:    %z = lpu.short_conv %y by %w bias %b : tensor<7xf32> slot 1 : tensor<7x1x3xf32> -> tensor<?x7xf32>
