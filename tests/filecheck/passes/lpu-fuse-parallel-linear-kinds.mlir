// RUN: hyperdex-opt %s -p lpu-fuse-parallel-linear --split-input-file | filecheck %s
// The keys of layers of two kinds are of other tensors; a tensor that both have stays as it is.

func.func @main(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %h = lpu.layer @kind0(%x) : (tensor<?x64xf32>) -> tensor<?x64xf32>
  %y = lpu.layer @kind1(%h) : (tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
func.func @kind0(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %w = lpu.weight "layers.*.gate" : tensor<64x64xf16>
  %v = lpu.weight "layers.*.up" : tensor<64x64xf16>
  %g = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %u = lpu.linear %x by %v : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %a = lpu.silu %g : tensor<?x64xf32>
  %y = lpu.mul %a, %u : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
func.func @kind1(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %w = lpu.weight "layers.*.gate" : tensor<64x64xf16>
  %v = lpu.weight "layers.*.up" : tensor<64x64xf16>
  %g = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %u = lpu.linear %x by %v : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %a = lpu.relu %g : tensor<?x64xf32>
  %y = lpu.mul %a, %u : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}

// -----

func.func @main(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %h = lpu.layer @kind0(%x) : (tensor<?x64xf32>) -> tensor<?x64xf32>
  %y = lpu.layer @kind1(%h) : (tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
func.func @kind0(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %w = lpu.weight "layers.*.gate" : tensor<64x64xf16>
  %v = lpu.weight "up" : tensor<64x64xf16>
  %g = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %u = lpu.linear %x by %v : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %a = lpu.silu %g : tensor<?x64xf32>
  %y = lpu.mul %a, %u : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
func.func @kind1(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %w = lpu.weight "layers.*.gate" : tensor<64x64xf16>
  %v = lpu.weight "up" : tensor<64x64xf16>
  %g = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %u = lpu.linear %x by %v : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %a = lpu.relu %g : tensor<?x64xf32>
  %y = lpu.mul %a, %u : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}

// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @main(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %h = lpu.layer @kind0(%x) : (tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %y = lpu.layer @kind1(%h) : (tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @kind0(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %0 = lpu.weight "gate", "up" in "layers.*" : tensor<128x64xf16>
// CHECK-NEXT:     %y = lpu.linear %x by %0 gated then silu : tensor<?x64xf32>, tensor<128x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @kind1(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %0 = lpu.weight "gate", "up" in "layers.*" : tensor<128x64xf16>
// CHECK-NEXT:     %y = lpu.linear %x by %0 gated then relu : tensor<?x64xf32>, tensor<128x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @main(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %h = lpu.layer @kind0(%x) : (tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %y = lpu.layer @kind1(%h) : (tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @kind0(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w = lpu.weight "layers.*.gate" : tensor<64x64xf16>
// CHECK-NEXT:     %v = lpu.weight "up" : tensor<64x64xf16>
// CHECK-NEXT:     %g = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %u = lpu.linear %x by %v : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %a = lpu.silu %g : tensor<?x64xf32>
// CHECK-NEXT:     %y = lpu.mul %a, %u : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @kind1(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w = lpu.weight "layers.*.gate" : tensor<64x64xf16>
// CHECK-NEXT:     %v = lpu.weight "up" : tensor<64x64xf16>
// CHECK-NEXT:     %g = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %u = lpu.linear %x by %v : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %a = lpu.relu %g : tensor<?x64xf32>
// CHECK-NEXT:     %y = lpu.mul %a, %u : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
