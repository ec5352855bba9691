// RUN: hyperdex-opt %s -p isa-allocate-lmu | filecheck %s
// %hidden takes the place of %short, whose life is over. %carried is used in the repeat, so it lives through all of it.
// @layer lies above what lives at its call; its %c takes the place of its %a.

builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 12 : i64} {
func.func @main() {
  %long = isa.buffer : !isa.lmu<tokens x 10>
  isa.load dst=%long src=hbm[0] columns=10
  %short = isa.buffer : !isa.lmu<1 x 20>
  isa.load dst=%short src=hbm[0] columns=20
  isa.unary function=neg dst=%short a=%short columns=20 rows=tokens
  %hidden = isa.buffer : !isa.lmu<tokens x 64>
  isa.load dst=%hidden src=hbm[0] columns=64
  %carried = isa.buffer : !isa.lmu<tokens x 8>
  isa.repeat 3 {
    %local = isa.buffer : !isa.lmu<tokens x 8>
    isa.load dst=%local src=hbm[0] columns=8
    isa.unary function=copy dst=%carried a=%local columns=8 rows=tokens
    isa.call @layer(%hidden) : !isa.lmu<tokens x 64>
  }
  isa.unary function=copy dst=%long a=%hidden columns=10 rows=tokens
  %head = isa.buffer : !isa.lmu<head x 32>
  isa.select_rows dst=%head src=%long first=first_row columns=10 rows=head_rows
  func.return
}
func.func @layer(%h: !isa.lmu<tokens x 64>) {
  %a = isa.buffer : !isa.lmu<tokens x 64>
  isa.unary function=neg dst=%a a=%h columns=64 rows=tokens
  %b = isa.buffer : !isa.lmu<tokens x 64>
  isa.unary function=neg dst=%b a=%a columns=64 rows=tokens
  %c = isa.buffer : !isa.lmu<tokens x 64>
  isa.unary function=neg dst=%c a=%b columns=64 rows=tokens
  isa.unary function=neg dst=%h a=%c columns=64 rows=tokens
  func.return
}
}

// CHECK:      builtin.module attributes {lpu.target = "u55c", lpu.max_length = 12 : i64, isa.chunk = 8 : i64, isa.head_rows = 8 : i64, isa.lmu_words = 1680 : i64} {
// CHECK-NEXT:   func.func @main() {
// CHECK-NEXT:     %long = isa.buffer : !isa.lmu<tokens x 10 at 0>
// CHECK-NEXT:     isa.load dst=%long src=hbm[0] columns=10
// CHECK-NEXT:     %short = isa.buffer : !isa.lmu<1 x 20 at 80>
// CHECK-NEXT:     isa.load dst=%short src=hbm[0] columns=20
// CHECK-NEXT:     isa.unary function=neg dst=%short a=%short columns=20 rows=tokens
// CHECK-NEXT:     %hidden = isa.buffer : !isa.lmu<tokens x 64 at 80>
// CHECK-NEXT:     isa.load dst=%hidden src=hbm[0] columns=64
// CHECK-NEXT:     %carried = isa.buffer : !isa.lmu<tokens x 8 at 592>
// CHECK-NEXT:     isa.repeat 3 {
// CHECK-NEXT:       %local = isa.buffer : !isa.lmu<tokens x 8 at 656>
// CHECK-NEXT:       isa.load dst=%local src=hbm[0] columns=8
// CHECK-NEXT:       isa.unary function=copy dst=%carried a=%local columns=8 rows=tokens
// CHECK-NEXT:       isa.call @layer(%hidden) : !isa.lmu<tokens x 64 at 80>
// CHECK-NEXT:     }
// CHECK-NEXT:     isa.unary function=copy dst=%long a=%hidden columns=10 rows=tokens
// CHECK-NEXT:     %head = isa.buffer : !isa.lmu<head x 32 at 80>
// CHECK-NEXT:     isa.select_rows dst=%head src=%long first=first_row columns=10 rows=head_rows
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @layer(%h: !isa.lmu<tokens x 64 at 80>) {
// CHECK-NEXT:     %a = isa.buffer : !isa.lmu<tokens x 64 at 656>
// CHECK-NEXT:     isa.unary function=neg dst=%a a=%h columns=64 rows=tokens
// CHECK-NEXT:     %b = isa.buffer : !isa.lmu<tokens x 64 at 1168>
// CHECK-NEXT:     isa.unary function=neg dst=%b a=%a columns=64 rows=tokens
// CHECK-NEXT:     %c = isa.buffer : !isa.lmu<tokens x 64 at 656>
// CHECK-NEXT:     isa.unary function=neg dst=%c a=%b columns=64 rows=tokens
// CHECK-NEXT:     isa.unary function=neg dst=%h a=%c columns=64 rows=tokens
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT: }
