// RUN: hyperdex-opt %s -p lpu-fuse-rotary --split-input-file | filecheck %s
// Pairs of neighbours: the first three fuse. What follows turns other pairs.

func.func @interleaved(%x: tensor<?x4x16xf32>, %cos: tensor<?x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x16xf32> {
  %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %p = lpu.mul %x, %c : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %e = lpu.slice %x dim 2 from 0 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %o = lpu.slice %x dim 2 from 1 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %g = lpu.neg %o : tensor<?x4x8xf32>
  %n = lpu.reshape %g : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
  %f = lpu.reshape %e : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
  %k = lpu.concat %n, %f dim 3 : (tensor<?x4x8x1xf32>, tensor<?x4x8x1xf32>) -> tensor<?x4x8x2xf32>
  %t = lpu.reshape %k : (tensor<?x4x8x2xf32>) -> tensor<?x4x16xf32>
  %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  func.return %y : tensor<?x4x16xf32>
}
// -----
func.func @partial(%z: tensor<?x4x20xf32>, %cos: tensor<?x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x20xf32> {
  %x = lpu.slice %z dim 2 from 0 to 16 : (tensor<?x4x20xf32>) -> tensor<?x4x16xf32>
  %r = lpu.slice %z dim 2 from 16 to 20 : (tensor<?x4x20xf32>) -> tensor<?x4x4xf32>
  %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %p = lpu.mul %x, %c : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %e = lpu.slice %x dim 2 from 0 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %o = lpu.slice %x dim 2 from 1 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %g = lpu.neg %o : tensor<?x4x8xf32>
  %n = lpu.reshape %g : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
  %f = lpu.reshape %e : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
  %k = lpu.concat %n, %f dim 3 : (tensor<?x4x8x1xf32>, tensor<?x4x8x1xf32>) -> tensor<?x4x8x2xf32>
  %t = lpu.reshape %k : (tensor<?x4x8x2xf32>) -> tensor<?x4x16xf32>
  %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  %w = lpu.concat %y, %r dim 2 : (tensor<?x4x16xf32>, tensor<?x4x4xf32>) -> tensor<?x4x20xf32>
  func.return %w : tensor<?x4x20xf32>
}
// -----
func.func @angles_spread_out(%x: tensor<?x4x16xf32>, %half: tensor<?x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x16xf32> {
  %h = lpu.slice %half dim 1 from 0 to 8 : (tensor<?x16xf32>) -> tensor<?x8xf32>
  %i = lpu.reshape %h : (tensor<?x8xf32>) -> tensor<?x1x8x1xf32>
  %j = lpu.broadcast %i : (tensor<?x1x8x1xf32>) -> tensor<?x1x8x2xf32>
  %c = lpu.reshape %j : (tensor<?x1x8x2xf32>) -> tensor<?x1x16xf32>
  %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %p = lpu.mul %x, %c : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %e = lpu.slice %x dim 2 from 0 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %o = lpu.slice %x dim 2 from 1 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %g = lpu.neg %o : tensor<?x4x8xf32>
  %n = lpu.reshape %g : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
  %f = lpu.reshape %e : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
  %k = lpu.concat %n, %f dim 3 : (tensor<?x4x8x1xf32>, tensor<?x4x8x1xf32>) -> tensor<?x4x8x2xf32>
  %t = lpu.reshape %k : (tensor<?x4x8x2xf32>) -> tensor<?x4x16xf32>
  %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  func.return %y : tensor<?x4x16xf32>
}
// -----
func.func @even_ones_negated(%x: tensor<?x4x16xf32>, %cos: tensor<?x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x16xf32> {
  %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %p = lpu.mul %x, %c : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %e = lpu.slice %x dim 2 from 0 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %o = lpu.slice %x dim 2 from 1 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %g = lpu.neg %e : tensor<?x4x8xf32>
  %n = lpu.reshape %g : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
  %f = lpu.reshape %o : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
  %k = lpu.concat %n, %f dim 3 : (tensor<?x4x8x1xf32>, tensor<?x4x8x1xf32>) -> tensor<?x4x8x2xf32>
  %t = lpu.reshape %k : (tensor<?x4x8x2xf32>) -> tensor<?x4x16xf32>
  %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  func.return %y : tensor<?x4x16xf32>
}
// -----
func.func @stacked_the_other_way_round(%x: tensor<?x4x16xf32>, %cos: tensor<?x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x16xf32> {
  %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %p = lpu.mul %x, %c : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %e = lpu.slice %x dim 2 from 0 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %o = lpu.slice %x dim 2 from 1 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %g = lpu.neg %o : tensor<?x4x8xf32>
  %n = lpu.reshape %g : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
  %f = lpu.reshape %e : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
  %k = lpu.concat %f, %n dim 3 : (tensor<?x4x8x1xf32>, tensor<?x4x8x1xf32>) -> tensor<?x4x8x2xf32>
  %t = lpu.reshape %k : (tensor<?x4x8x2xf32>) -> tensor<?x4x16xf32>
  %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  func.return %y : tensor<?x4x16xf32>
}
// -----
func.func @halves_interleaved(%x: tensor<?x4x16xf32>, %cos: tensor<?x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x16xf32> {
  %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %p = lpu.mul %x, %c : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %e = lpu.slice %x dim 2 from 0 to 8 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %o = lpu.slice %x dim 2 from 8 to 16 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %g = lpu.neg %o : tensor<?x4x8xf32>
  %n = lpu.reshape %g : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
  %f = lpu.reshape %e : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
  %k = lpu.concat %n, %f dim 3 : (tensor<?x4x8x1xf32>, tensor<?x4x8x1xf32>) -> tensor<?x4x8x2xf32>
  %t = lpu.reshape %k : (tensor<?x4x8x2xf32>) -> tensor<?x4x16xf32>
  %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  func.return %y : tensor<?x4x16xf32>
}
// -----
func.func @side_by_side(%x: tensor<?x4x16xf32>, %cos: tensor<?x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x16xf32> {
  %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %p = lpu.mul %x, %c : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %e = lpu.slice %x dim 2 from 0 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %o = lpu.slice %x dim 2 from 1 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %g = lpu.neg %o : tensor<?x4x8xf32>
  %n = lpu.reshape %g : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
  %f = lpu.reshape %e : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
  %k = lpu.concat %n, %f dim 2 : (tensor<?x4x8x1xf32>, tensor<?x4x8x1xf32>) -> tensor<?x4x16x1xf32>
  %t = lpu.reshape %k : (tensor<?x4x16x1xf32>) -> tensor<?x4x16xf32>
  %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  func.return %y : tensor<?x4x16xf32>
}
// -----
func.func @of_another(%x: tensor<?x4x16xf32>, %cos: tensor<?x16xf32>, %sin: tensor<?x16xf32>, %z: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
  %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %p = lpu.mul %x, %c : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %e = lpu.slice %z dim 2 from 0 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %o = lpu.slice %x dim 2 from 1 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
  %g = lpu.neg %o : tensor<?x4x8xf32>
  %n = lpu.reshape %g : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
  %f = lpu.reshape %e : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
  %k = lpu.concat %n, %f dim 3 : (tensor<?x4x8x1xf32>, tensor<?x4x8x1xf32>) -> tensor<?x4x8x2xf32>
  %t = lpu.reshape %k : (tensor<?x4x8x2xf32>) -> tensor<?x4x16xf32>
  %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  func.return %y : tensor<?x4x16xf32>
}

// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @interleaved(%x: tensor<?x4x16xf32>, %cos: tensor<?x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %y = lpu.rotary %x cos %cos sin %sin style interleaved : (tensor<?x4x16xf32>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %y : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @partial(%z: tensor<?x4x20xf32>, %cos: tensor<?x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x20xf32> {
// CHECK-NEXT:     %w = lpu.rotary %z cos %cos sin %sin style interleaved : (tensor<?x4x20xf32>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x4x20xf32>
// CHECK-NEXT:     func.return %w : tensor<?x4x20xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @angles_spread_out(%x: tensor<?x4x16xf32>, %half: tensor<?x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %h = lpu.slice %half dim 1 from 0 to 8 : (tensor<?x16xf32>) -> tensor<?x8xf32>
// CHECK-NEXT:     %i = lpu.reshape %h : (tensor<?x8xf32>) -> tensor<?x1x8x1xf32>
// CHECK-NEXT:     %j = lpu.broadcast %i : (tensor<?x1x8x1xf32>) -> tensor<?x1x8x2xf32>
// CHECK-NEXT:     %c = lpu.reshape %j : (tensor<?x1x8x2xf32>) -> tensor<?x1x16xf32>
// CHECK-NEXT:     %0 = lpu.reshape %c : (tensor<?x1x16xf32>) -> tensor<?x16xf32>
// CHECK-NEXT:     %y = lpu.rotary %x cos %0 sin %sin style interleaved : (tensor<?x4x16xf32>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %y : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @even_ones_negated(%x: tensor<?x4x16xf32>, %cos: tensor<?x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
// CHECK-NEXT:     %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
// CHECK-NEXT:     %p = lpu.mul %x, %c : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %e = lpu.slice %x dim 2 from 0 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
// CHECK-NEXT:     %o = lpu.slice %x dim 2 from 1 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
// CHECK-NEXT:     %g = lpu.neg %e : tensor<?x4x8xf32>
// CHECK-NEXT:     %n = lpu.reshape %g : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
// CHECK-NEXT:     %f = lpu.reshape %o : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
// CHECK-NEXT:     %k = lpu.concat %n, %f dim 3 : (tensor<?x4x8x1xf32>, tensor<?x4x8x1xf32>) -> tensor<?x4x8x2xf32>
// CHECK-NEXT:     %t = lpu.reshape %k : (tensor<?x4x8x2xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %y : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @stacked_the_other_way_round(%x: tensor<?x4x16xf32>, %cos: tensor<?x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
// CHECK-NEXT:     %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
// CHECK-NEXT:     %p = lpu.mul %x, %c : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %e = lpu.slice %x dim 2 from 0 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
// CHECK-NEXT:     %o = lpu.slice %x dim 2 from 1 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
// CHECK-NEXT:     %g = lpu.neg %o : tensor<?x4x8xf32>
// CHECK-NEXT:     %n = lpu.reshape %g : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
// CHECK-NEXT:     %f = lpu.reshape %e : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
// CHECK-NEXT:     %k = lpu.concat %f, %n dim 3 : (tensor<?x4x8x1xf32>, tensor<?x4x8x1xf32>) -> tensor<?x4x8x2xf32>
// CHECK-NEXT:     %t = lpu.reshape %k : (tensor<?x4x8x2xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %y : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @halves_interleaved(%x: tensor<?x4x16xf32>, %cos: tensor<?x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
// CHECK-NEXT:     %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
// CHECK-NEXT:     %p = lpu.mul %x, %c : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %e = lpu.slice %x dim 2 from 0 to 8 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
// CHECK-NEXT:     %o = lpu.slice %x dim 2 from 8 to 16 : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
// CHECK-NEXT:     %g = lpu.neg %o : tensor<?x4x8xf32>
// CHECK-NEXT:     %n = lpu.reshape %g : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
// CHECK-NEXT:     %f = lpu.reshape %e : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
// CHECK-NEXT:     %k = lpu.concat %n, %f dim 3 : (tensor<?x4x8x1xf32>, tensor<?x4x8x1xf32>) -> tensor<?x4x8x2xf32>
// CHECK-NEXT:     %t = lpu.reshape %k : (tensor<?x4x8x2xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %y : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @side_by_side(%x: tensor<?x4x16xf32>, %cos: tensor<?x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
// CHECK-NEXT:     %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
// CHECK-NEXT:     %p = lpu.mul %x, %c : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %e = lpu.slice %x dim 2 from 0 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
// CHECK-NEXT:     %o = lpu.slice %x dim 2 from 1 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
// CHECK-NEXT:     %g = lpu.neg %o : tensor<?x4x8xf32>
// CHECK-NEXT:     %n = lpu.reshape %g : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
// CHECK-NEXT:     %f = lpu.reshape %e : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
// CHECK-NEXT:     %k = lpu.concat %n, %f dim 2 : (tensor<?x4x8x1xf32>, tensor<?x4x8x1xf32>) -> tensor<?x4x16x1xf32>
// CHECK-NEXT:     %t = lpu.reshape %k : (tensor<?x4x16x1xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %y : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @of_another(%x: tensor<?x4x16xf32>, %cos: tensor<?x16xf32>, %sin: tensor<?x16xf32>, %z: tensor<?x4x16xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %c = lpu.reshape %cos : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
// CHECK-NEXT:     %s = lpu.reshape %sin : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
// CHECK-NEXT:     %p = lpu.mul %x, %c : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %e = lpu.slice %z dim 2 from 0 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
// CHECK-NEXT:     %o = lpu.slice %x dim 2 from 1 to 16 {step = 2 : i64} : (tensor<?x4x16xf32>) -> tensor<?x4x8xf32>
// CHECK-NEXT:     %g = lpu.neg %o : tensor<?x4x8xf32>
// CHECK-NEXT:     %n = lpu.reshape %g : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
// CHECK-NEXT:     %f = lpu.reshape %e : (tensor<?x4x8xf32>) -> tensor<?x4x8x1xf32>
// CHECK-NEXT:     %k = lpu.concat %n, %f dim 3 : (tensor<?x4x8x1xf32>, tensor<?x4x8x1xf32>) -> tensor<?x4x8x2xf32>
// CHECK-NEXT:     %t = lpu.reshape %k : (tensor<?x4x8x2xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %q = lpu.mul %t, %s : (tensor<?x4x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %y = lpu.add %p, %q : (tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %y : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
