// RUN: hyperdex-opt %s -p isa-schedule --split-input-file | filecheck %s
// What is sent first travels while the rest is computed; receives stay in the order of their sends. What sends inside,
// as a call, stays between what was before and behind it. Where there is a send too many, the order stays.

builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 64 : i64} {
func.func @main() {
  isa.multiply dst=r16 a=device value=256
  %h = isa.buffer : !isa.lmu<tokens x 2048>
  isa.embed dst=%h table=hbm[0] index=token ids=hbm[900000] limit=64 columns=2048 type=f16 rows=tokens
  %g = isa.buffer : !isa.lmu<tokens x 768>
  isa.matmul dst=%g[r16] src=%h weight=hbm[100000] k=2048 n=128 type=f16 rows=tokens
  isa.send src=%g hop=0 parts=3 pitch=256 columns=128 rows=tokens
  isa.receive dst=%g hop=1 parts=3 pitch=256 columns=128 rows=tokens
  isa.send src=%g hop=1 parts=3 pitch=256 columns=128 rows=tokens
  isa.receive dst=%g hop=2 parts=3 pitch=256 columns=128 rows=tokens
  isa.matmul dst=%g[128 + r16] src=%h weight=hbm[700000] k=2048 n=128 type=f16 rows=tokens
  isa.send src=%g hop=0 parts=3 pitch=256 first=128 columns=128 rows=tokens
  isa.receive dst=%g hop=1 parts=3 pitch=256 first=128 columns=128 rows=tokens
  isa.send src=%g hop=1 parts=3 pitch=256 first=128 columns=128 rows=tokens
  isa.receive dst=%g hop=2 parts=3 pitch=256 first=128 columns=128 rows=tokens
  %n = isa.buffer : !isa.lmu<tokens x 2048>
  isa.unary function=neg dst=%n a=%h columns=2048 rows=tokens
  func.return
}
}
// -----
builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 64 : i64} {
func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 768>
  %g = isa.buffer : !isa.lmu<tokens x 768>
  isa.embed dst=%h table=hbm[0] index=token ids=hbm[900000] limit=64 columns=768 type=f16 rows=tokens
  isa.send src=%h hop=0 parts=2 pitch=256 columns=256 rows=tokens
  isa.receive dst=%h hop=1 parts=2 pitch=256 columns=256 rows=tokens
  isa.call @around(%g) : !isa.lmu<tokens x 768>
  isa.embed dst=%g table=hbm[0] index=token ids=hbm[900000] limit=64 columns=768 type=f16 rows=tokens
  isa.send src=%g hop=0 parts=2 pitch=256 columns=256 rows=tokens
  isa.receive dst=%g hop=1 parts=2 pitch=256 columns=256 rows=tokens
  func.return
}
func.func @around(%g: !isa.lmu<tokens x 768>) {
  isa.embed dst=%g table=hbm[0] index=token ids=hbm[900000] limit=64 columns=768 type=f16 rows=tokens
  isa.send src=%g hop=0 parts=2 pitch=256 columns=256 rows=tokens
  isa.receive dst=%g hop=1 parts=2 pitch=256 columns=256 rows=tokens
  func.return
}
}
// -----
builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 64 : i64} {
func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 768>
  isa.embed dst=%h table=hbm[0] index=token ids=hbm[900000] limit=64 columns=768 type=f16 rows=tokens
  isa.send src=%h hop=0 parts=2 pitch=256 columns=256 rows=tokens
  isa.receive dst=%h hop=1 parts=2 pitch=256 columns=256 rows=tokens
  isa.send src=%h hop=0 parts=2 pitch=256 columns=256 rows=tokens
  %n = isa.buffer : !isa.lmu<tokens x 768>
  isa.matmul dst=%n src=%h weight=hbm[100000] k=768 n=768 type=f16 rows=tokens
  func.return
}
}

// CHECK:      builtin.module attributes {lpu.target = "u55c", lpu.max_length = 64 : i64, isa.cycles_before = 1129 : i64, isa.cycles = 1103 : i64} {
// CHECK-NEXT:   func.func @main() {
// CHECK-NEXT:     %h = isa.buffer : !isa.lmu<tokens x 2048>
// CHECK-NEXT:     isa.embed dst=%h table=hbm[0] index=token ids=hbm[900000] limit=64 columns=2048 type=f16 rows=tokens
// CHECK-NEXT:     %n = isa.buffer : !isa.lmu<tokens x 2048>
// CHECK-NEXT:     isa.unary function=neg dst=%n a=%h columns=2048 rows=tokens
// CHECK-NEXT:     isa.multiply dst=r16 a=device value=256
// CHECK-NEXT:     %g = isa.buffer : !isa.lmu<tokens x 768>
// CHECK-NEXT:     isa.matmul dst=%g[r16] src=%h weight=hbm[100000] k=2048 n=128 type=f16 rows=tokens prefetch=256
// CHECK-NEXT:     isa.matmul dst=%g[128 + r16] src=%h weight=hbm[700000] k=2048 n=128 type=f16 rows=tokens
// CHECK-NEXT:     isa.send src=%g hop=0 parts=3 pitch=256 columns=128 rows=tokens
// CHECK-NEXT:     isa.receive dst=%g hop=1 parts=3 pitch=256 columns=128 rows=tokens
// CHECK-NEXT:     isa.send src=%g hop=1 parts=3 pitch=256 columns=128 rows=tokens
// CHECK-NEXT:     isa.send src=%g hop=0 parts=3 pitch=256 first=128 columns=128 rows=tokens
// CHECK-NEXT:     isa.receive dst=%g hop=2 parts=3 pitch=256 columns=128 rows=tokens
// CHECK-NEXT:     isa.receive dst=%g hop=1 parts=3 pitch=256 first=128 columns=128 rows=tokens
// CHECK-NEXT:     isa.send src=%g hop=1 parts=3 pitch=256 first=128 columns=128 rows=tokens
// CHECK-NEXT:     isa.receive dst=%g hop=2 parts=3 pitch=256 first=128 columns=128 rows=tokens
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT: }
// CHECK:      builtin.module attributes {lpu.target = "u55c", lpu.max_length = 64 : i64, isa.cycles_before = 572 : i64, isa.cycles = 572 : i64} {
// CHECK-NEXT:   func.func @main() {
// CHECK-NEXT:     %h = isa.buffer : !isa.lmu<tokens x 768>
// CHECK-NEXT:     %g = isa.buffer : !isa.lmu<tokens x 768>
// CHECK-NEXT:     isa.embed dst=%h table=hbm[0] index=token ids=hbm[900000] limit=64 columns=768 type=f16 rows=tokens
// CHECK-NEXT:     isa.send src=%h hop=0 parts=2 pitch=256 columns=256 rows=tokens
// CHECK-NEXT:     isa.receive dst=%h hop=1 parts=2 pitch=256 columns=256 rows=tokens
// CHECK-NEXT:     isa.call @around(%g) : !isa.lmu<tokens x 768>
// CHECK-NEXT:     isa.embed dst=%g table=hbm[0] index=token ids=hbm[900000] limit=64 columns=768 type=f16 rows=tokens
// CHECK-NEXT:     isa.send src=%g hop=0 parts=2 pitch=256 columns=256 rows=tokens
// CHECK-NEXT:     isa.receive dst=%g hop=1 parts=2 pitch=256 columns=256 rows=tokens
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @around(%g: !isa.lmu<tokens x 768>) {
// CHECK-NEXT:     isa.embed dst=%g table=hbm[0] index=token ids=hbm[900000] limit=64 columns=768 type=f16 rows=tokens
// CHECK-NEXT:     isa.send src=%g hop=0 parts=2 pitch=256 columns=256 rows=tokens
// CHECK-NEXT:     isa.receive dst=%g hop=1 parts=2 pitch=256 columns=256 rows=tokens
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT: }
// CHECK:      builtin.module attributes {lpu.target = "u55c", lpu.max_length = 64 : i64, isa.cycles_before = 951 : i64, isa.cycles = 926 : i64} {
// CHECK-NEXT:   func.func @main() {
// CHECK-NEXT:     %h = isa.buffer : !isa.lmu<tokens x 768>
// CHECK-NEXT:     isa.embed dst=%h table=hbm[0] index=token ids=hbm[900000] limit=64 columns=768 type=f16 rows=tokens
// CHECK-NEXT:     isa.send src=%h hop=0 parts=2 pitch=256 columns=256 rows=tokens
// CHECK-NEXT:     isa.receive dst=%h hop=1 parts=2 pitch=256 columns=256 rows=tokens
// CHECK-NEXT:     isa.send src=%h hop=0 parts=2 pitch=256 columns=256 rows=tokens
// CHECK-NEXT:     %n = isa.buffer : !isa.lmu<tokens x 768>
// CHECK-NEXT:     isa.matmul dst=%n src=%h weight=hbm[100000] k=768 n=768 type=f16 rows=tokens prefetch=512
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT: }
