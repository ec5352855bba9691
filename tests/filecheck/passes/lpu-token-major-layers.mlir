// RUN: hyperdex-opt %s -p lpu-token-major --split-input-file | filecheck %s
// Functions of layers, what is passed to them, and what goes round in repeats.

func.func @main(%x: tensor<1x?x64xf32>, %r: tensor<1x?x64xf32>) -> tensor<1x?x64xf32> {
  %y = lpu.repeat 3 (%i = %x : tensor<1x?x64xf32>) {
    %o = lpu.layer @layer(%i, %r) : (tensor<1x?x64xf32>, tensor<1x?x64xf32>) -> tensor<1x?x64xf32>
    lpu.yield %o : tensor<1x?x64xf32>
  }
  %z = lpu.layers "order" [0, 1] @layer, @other (%y : tensor<1x?x64xf32>, %r : tensor<1x?x64xf32>)
  func.return %z : tensor<1x?x64xf32>
}
func.func @layer(%h: tensor<1x?x64xf32>, %r: tensor<1x?x64xf32>) -> tensor<1x?x64xf32> {
  %y = lpu.add %h, %r : (tensor<1x?x64xf32>, tensor<1x?x64xf32>) -> tensor<1x?x64xf32>
  func.return %y : tensor<1x?x64xf32>
}
func.func @other(%h: tensor<1x?x64xf32>, %r: tensor<1x?x64xf32>) -> tensor<1x?x64xf32> {
  func.return %h : tensor<1x?x64xf32>
}

// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @main(%x: tensor<?x64xf32>, %r: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %y = lpu.repeat 3 (%i = %x : tensor<?x64xf32>) {
// CHECK-NEXT:       %o = lpu.layer @layer(%i, %r) : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:       lpu.yield %o : tensor<?x64xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     %z = lpu.layers "order" [0, 1] @layer, @other (%y : tensor<?x64xf32>, %r : tensor<?x64xf32>)
// CHECK-NEXT:     func.return %z : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @layer(%h: tensor<?x64xf32>, %r: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %y = lpu.add %h, %r : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @other(%h: tensor<?x64xf32>, %r: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     func.return %h : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
