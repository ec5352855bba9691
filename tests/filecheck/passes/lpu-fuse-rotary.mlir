// RUN: hyperdex-opt %s -p lpu-fuse-rotary --split-input-file --print-debuginfo | filecheck %s
// The first three are rotations (the third of the first 16 of 20 elements); the others are not.

func.func @rotary(%x: tensor<?x4x16xf32>, %cos: tensor<?x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x16xf32> {
  %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %p = lpu.mul %x, %c : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %l = lpu.slice %x dim 2 from 0 to 8 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %h = lpu.slice %x dim 2 from 8 to 16 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %n = lpu.neg %h : tensor<?x4x8xf32>
  %t = lpu.concat %n, %l dim 2 : (tensor<?x4x8xf32>, tensor<?x4x8xf32>) -> tensor<?x4x16xf32>
  %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
  func.return %y : tensor<?x4x16xf32>
}
// -----
func.func @factors_swapped(%x: tensor<?x4x16xf32>, %cos: tensor<?x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x16xf32> {
  %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %p = lpu.mul %c, %x : (tensor<?x1x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  %l = lpu.slice %x dim 2 from 0 to 8 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %h = lpu.slice %x dim 2 from 8 to 16 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %n = lpu.neg %h : tensor<?x4x8xf32>
  %t = lpu.concat %n, %l dim 2 : (tensor<?x4x8xf32>, tensor<?x4x8xf32>) -> tensor<?x4x16xf32>
  %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %y = lpu.add %q, %p : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
  func.return %y : tensor<?x4x16xf32>
}
// -----
func.func @partial(%w: tensor<?x4x20xf32>, %cos: tensor<?x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x20xf32> {
  %x = lpu.slice %w dim 2 from 0 to 16 : (tensor<?x4x20xf32>) -> tensor<?x4x16xf32>
  %o = lpu.slice %w dim 2 from 16 to 20 : (tensor<?x4x20xf32>) -> tensor<?x4x4xf32>
  %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %p = lpu.mul %x, %c : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %l = lpu.slice %x dim 2 from 0 to 8 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %h = lpu.slice %x dim 2 from 8 to 16 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %n = lpu.neg %h : tensor<?x4x8xf32>
  %t = lpu.concat %n, %l dim 2 : (tensor<?x4x8xf32>, tensor<?x4x8xf32>) -> tensor<?x4x16xf32>
  %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
  %z = lpu.concat %y, %o dim 2 : (tensor<?x4x16xf32>, tensor<?x4x4xf32>) -> tensor<?x4x20xf32>
  func.return %z : tensor<?x4x20xf32>
}
// -----
func.func @not_negated(%x: tensor<?x4x16xf32>, %cos: tensor<?x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x16xf32> {
  %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %p = lpu.mul %x, %c : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %l = lpu.slice %x dim 2 from 0 to 8 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %h = lpu.slice %x dim 2 from 8 to 16 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %t = lpu.concat %h, %l dim 2 : (tensor<?x4x8xf32>, tensor<?x4x8xf32>) -> tensor<?x4x16xf32>
  %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
  func.return %y : tensor<?x4x16xf32>
}
// -----
func.func @halves_swapped(%x: tensor<?x4x16xf32>, %cos: tensor<?x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x16xf32> {
  %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %p = lpu.mul %x, %c : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %l = lpu.slice %x dim 2 from 0 to 8 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %h = lpu.slice %x dim 2 from 8 to 16 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %n = lpu.neg %h : tensor<?x4x8xf32>
  %t = lpu.concat %l, %n dim 2 : (tensor<?x4x8xf32>, tensor<?x4x8xf32>) -> tensor<?x4x16xf32>
  %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
  func.return %y : tensor<?x4x16xf32>
}
// -----
func.func @wrong_half_negated(%x: tensor<?x4x16xf32>, %cos: tensor<?x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x16xf32> {
  %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %p = lpu.mul %x, %c : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %l = lpu.slice %x dim 2 from 0 to 8 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %h = lpu.slice %x dim 2 from 8 to 16 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %n = lpu.neg %l : tensor<?x4x8xf32>
  %t = lpu.concat %n, %h dim 2 : (tensor<?x4x8xf32>, tensor<?x4x8xf32>) -> tensor<?x4x16xf32>
  %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
  func.return %y : tensor<?x4x16xf32>
}
// -----
func.func @angles_by_head(%x: tensor<?x4x16xf32>, %cos: tensor<?x4x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x16xf32> {
  %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %p = lpu.mul %x, %cos : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  %l = lpu.slice %x dim 2 from 0 to 8 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %h = lpu.slice %x dim 2 from 8 to 16 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %n = lpu.neg %h : tensor<?x4x8xf32>
  %t = lpu.concat %n, %l dim 2 : (tensor<?x4x8xf32>, tensor<?x4x8xf32>) -> tensor<?x4x16xf32>
  %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
  func.return %y : tensor<?x4x16xf32>
}

// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @rotary(%x: tensor<?x4x16xf32> loc(unknown), %cos: tensor<?x16xf32> loc(unknown), %sin: tensor<?x16xf32> loc(unknown)) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %y = lpu.rotary %x cos %cos sin %sin style half : (tensor<?x4x16xf32>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
// CHECK-NEXT:     func.return %y : tensor<?x4x16xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @factors_swapped(%x: tensor<?x4x16xf32> loc(unknown), %cos: tensor<?x16xf32> loc(unknown), %sin: tensor<?x16xf32> loc(unknown)) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %y = lpu.rotary %x cos %cos sin %sin style half : (tensor<?x4x16xf32>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
// CHECK-NEXT:     func.return %y : tensor<?x4x16xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @partial(%w: tensor<?x4x20xf32> loc(unknown), %cos: tensor<?x16xf32> loc(unknown), %sin: tensor<?x16xf32> loc(unknown)) -> tensor<?x4x20xf32> {
// CHECK-NEXT:     %z = lpu.rotary %w cos %cos sin %sin style half : (tensor<?x4x20xf32>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x4x20xf32> loc("model.layers.0.self_attn")
// CHECK-NEXT:     func.return %z : tensor<?x4x20xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @not_negated(%x: tensor<?x4x16xf32> loc(unknown), %cos: tensor<?x16xf32> loc(unknown), %sin: tensor<?x16xf32> loc(unknown)) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<?x1x16xf32> loc(unknown)
// CHECK-NEXT:     %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32> loc(unknown)
// CHECK-NEXT:     %p = lpu.mul %x, %c : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32> loc(unknown)
// CHECK-NEXT:     %l = lpu.slice %x dim 2 from 0 to 8 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32> loc(unknown)
// CHECK-NEXT:     %h = lpu.slice %x dim 2 from 8 to 16 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32> loc(unknown)
// CHECK-NEXT:     %t = lpu.concat %h, %l dim 2 : (tensor<?x4x8xf32>, tensor<?x4x8xf32>) -> tensor<?x4x16xf32> loc(unknown)
// CHECK-NEXT:     %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32> loc(unknown)
// CHECK-NEXT:     %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
// CHECK-NEXT:     func.return %y : tensor<?x4x16xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @halves_swapped(%x: tensor<?x4x16xf32> loc(unknown), %cos: tensor<?x16xf32> loc(unknown), %sin: tensor<?x16xf32> loc(unknown)) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<?x1x16xf32> loc(unknown)
// CHECK-NEXT:     %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32> loc(unknown)
// CHECK-NEXT:     %p = lpu.mul %x, %c : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32> loc(unknown)
// CHECK-NEXT:     %l = lpu.slice %x dim 2 from 0 to 8 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32> loc(unknown)
// CHECK-NEXT:     %h = lpu.slice %x dim 2 from 8 to 16 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32> loc(unknown)
// CHECK-NEXT:     %n = lpu.neg %h : tensor<?x4x8xf32> loc(unknown)
// CHECK-NEXT:     %t = lpu.concat %l, %n dim 2 : (tensor<?x4x8xf32>, tensor<?x4x8xf32>) -> tensor<?x4x16xf32> loc(unknown)
// CHECK-NEXT:     %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32> loc(unknown)
// CHECK-NEXT:     %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
// CHECK-NEXT:     func.return %y : tensor<?x4x16xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @wrong_half_negated(%x: tensor<?x4x16xf32> loc(unknown), %cos: tensor<?x16xf32> loc(unknown), %sin: tensor<?x16xf32> loc(unknown)) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<?x1x16xf32> loc(unknown)
// CHECK-NEXT:     %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32> loc(unknown)
// CHECK-NEXT:     %p = lpu.mul %x, %c : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32> loc(unknown)
// CHECK-NEXT:     %l = lpu.slice %x dim 2 from 0 to 8 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32> loc(unknown)
// CHECK-NEXT:     %h = lpu.slice %x dim 2 from 8 to 16 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32> loc(unknown)
// CHECK-NEXT:     %n = lpu.neg %l : tensor<?x4x8xf32> loc(unknown)
// CHECK-NEXT:     %t = lpu.concat %n, %h dim 2 : (tensor<?x4x8xf32>, tensor<?x4x8xf32>) -> tensor<?x4x16xf32> loc(unknown)
// CHECK-NEXT:     %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32> loc(unknown)
// CHECK-NEXT:     %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
// CHECK-NEXT:     func.return %y : tensor<?x4x16xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @angles_by_head(%x: tensor<?x4x16xf32> loc(unknown), %cos: tensor<?x4x16xf32> loc(unknown), %sin: tensor<?x16xf32> loc(unknown)) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32> loc(unknown)
// CHECK-NEXT:     %p = lpu.mul %x, %cos : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc(unknown)
// CHECK-NEXT:     %l = lpu.slice %x dim 2 from 0 to 8 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32> loc(unknown)
// CHECK-NEXT:     %h = lpu.slice %x dim 2 from 8 to 16 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32> loc(unknown)
// CHECK-NEXT:     %n = lpu.neg %h : tensor<?x4x8xf32> loc(unknown)
// CHECK-NEXT:     %t = lpu.concat %n, %l dim 2 : (tensor<?x4x8xf32>, tensor<?x4x8xf32>) -> tensor<?x4x16xf32> loc(unknown)
// CHECK-NEXT:     %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32> loc(unknown)
// CHECK-NEXT:     %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
// CHECK-NEXT:     func.return %y : tensor<?x4x16xf32> loc(unknown)
// CHECK-NEXT:   } loc(unknown)
// CHECK-NEXT: } loc(unknown)
