// RUN: hyperdex-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s
// What slopes and sinks must be.

func.func @f(%q: tensor<?x4x16xf32>, %h: tensor<3xf32>) {
  %z = lpu.attention %q, %q, %q slot 0 scale 1.0 slopes %h : tensor<3xf32> : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  func.return
}
// CHECK: lpu.attention: slopes and sinks must be [H]

// -----

func.func @f(%q: tensor<?x4x16xf32>, %h: tensor<4x1xf32>) {
  %z = lpu.attention %q, %q, %q slot 0 scale 1.0 sinks %h : tensor<4x1xf32> : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  func.return
}
// CHECK: lpu.attention: slopes and sinks must be [H]

// -----

func.func @f(%q: tensor<?x4x16xf32>) {
  %z = lpu.attention %q, %q, %q slot 0 scale 1.0 bf16_bias : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  func.return
}
// CHECK: lpu.attention: bf16_bias needs slopes
