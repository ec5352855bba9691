// RUN: hyperdex-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

func.func @f(%x: tensor<?x7xf32>, %w: tensor<6x1x3xf32>) {
  %y = lpu.short_conv %x by %w slot 0 : tensor<6x1x3xf32> -> tensor<?x7xf32>
  func.return
}
// CHECK: lpu.short_conv: x must be [?, 6], as there are taps

// -----

func.func @f(%x: tensor<?x7xf32>, %w: tensor<7x3xf32>) {
  %y = lpu.short_conv %x by %w slot 0 : tensor<7x3xf32> -> tensor<?x7xf32>
  func.return
}
// CHECK: lpu.short_conv: the taps must be [C, 1, L]

// -----

func.func @f(%x: tensor<?x7xf32>, %w: tensor<7x1x3xf16>) {
  %y = lpu.short_conv %x by %w slot 0 : tensor<7x1x3xf16> -> tensor<?x7xf32>
  func.return
}
// CHECK: lpu.short_conv: the taps must be f32

// -----

func.func @f(%x: tensor<?x7xf32>, %w: tensor<7x1x3xf32>, %b: tensor<3xf32>) {
  %y = lpu.short_conv %x by %w bias %b : tensor<3xf32> slot 0 : tensor<7x1x3xf32> -> tensor<?x7xf32>
  func.return
}
// CHECK: lpu.short_conv: the bias must be [C]
