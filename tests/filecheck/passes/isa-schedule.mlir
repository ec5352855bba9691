// RUN: hyperdex-opt %s -p isa-schedule --split-input-file | filecheck %s
// Values first, then keys, then queries; the store of values goes behind the streams that would wait for it; the weights
// of the first matrix stream in during the norm.

builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 64 : i64} {
func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 256>
  isa.embed dst=%h table=hbm[0] index=token ids=hbm[900000] limit=64 columns=256 type=f16 rows=tokens
  %n = isa.buffer : !isa.lmu<tokens x 256>
  isa.rms_norm dst=%n a=%h epsilon=1.0e-05 columns=256 rows=tokens
  %q = isa.buffer : !isa.lmu<tokens x 256>
  isa.matmul dst=%q src=%n weight=hbm[100000] k=256 n=256 type=f16 rows=tokens
  %k = isa.buffer : !isa.lmu<tokens x 128>
  isa.matmul dst=%k src=%n weight=hbm[300000] k=256 n=128 type=f16 rows=tokens
  %v = isa.buffer : !isa.lmu<tokens x 128>
  isa.matmul dst=%v src=%n weight=hbm[400000] k=256 n=128 type=f16 rows=tokens
  isa.unary function=neg dst=%q a=%q columns=256 rows=tokens
  isa.unary function=neg dst=%k a=%k columns=128 rows=tokens
  isa.store_key cache=hbm[500000] pitch=8192 src=%k heads=2 size=64 limit=64 type=f16 rows=tokens
  isa.store_value cache=hbm[600000] pitch=8192 src=%v heads=2 size=64 limit=64 type=f16 rows=tokens
  %s = isa.buffer : !isa.lmu<tokens x 64>
  isa.scores dst=%s query=%q cache=hbm[500000] size=64 scale=0.125 type=f16 rows=tokens
  isa.softmax dst=%s src=%s rows=tokens
  isa.values dst=%q src=%s cache=hbm[600000] size=64 limit=64 type=f16 rows=tokens
  func.return
}
}
// -----
// Nothing may pass anything here: the second matrix reads what the first wrote (read after write), the load writes what
// the second reads (write after read), the scores read the keys that are stored right before.

builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 64 : i64} {
func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 256>
  isa.embed dst=%h table=hbm[0] index=token ids=hbm[900000] limit=64 columns=256 type=f16 rows=tokens
  %a = isa.buffer : !isa.lmu<tokens x 256>
  isa.matmul dst=%a src=%h weight=hbm[100000] k=256 n=256 type=f16 rows=tokens
  %b = isa.buffer : !isa.lmu<tokens x 128>
  isa.matmul dst=%b src=%a weight=hbm[300000] k=256 n=128 type=f16 rows=tokens
  isa.load dst=%a src=hbm[500000] columns=256
  isa.binary function=add dst=%b a=%b b=%a columns=128 rows=tokens
  isa.store_key cache=hbm[500000] pitch=8192 src=%b heads=2 size=64 limit=64 type=f16 rows=tokens
  %s = isa.buffer : !isa.lmu<tokens x 64>
  isa.scores dst=%s query=%a cache=hbm[500000] size=64 scale=0.125 type=f16 rows=tokens
  func.return
}
}
// -----
// A register that counts: what uses it stays where it is, before or behind the add.

builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 64 : i64} {
func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 256>
  isa.embed dst=%h table=hbm[0] index=token ids=hbm[900000] limit=64 columns=256 type=f16 rows=tokens
  isa.set dst=r9 value=0
  isa.unary function=neg dst=%h[r9] a=%h[64] columns=64 rows=tokens
  isa.add dst=r9 a=r9 b=zero value=128
  isa.unary function=neg dst=%h[r9] a=%h[64] columns=64 rows=tokens
  func.return
}
}
// -----
// Loading %b early would be quicker, but both do not fit the LMU: the order stays.

builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 64 : i64} {
func.func @main() {
  %sums = isa.buffer : !isa.lmu<1 x 2>
  %a = isa.buffer : !isa.lmu<1 x 2500000>
  isa.load dst=%a src=hbm[0] columns=2500000
  isa.reduce function=sum dst=%sums a=%a columns=2500000 rows=tokens
  %b = isa.buffer : !isa.lmu<1 x 2500000>
  isa.load dst=%b src=hbm[20000000] columns=2500000
  isa.reduce function=sum dst=%sums[1] a=%b columns=2500000 rows=tokens
  func.return
}
}

// CHECK:      builtin.module attributes {lpu.target = "u55c", lpu.max_length = 64 : i64, isa.cycles_before = 875 : i64, isa.cycles = 752 : i64} {
// CHECK-NEXT:   func.func @main() {
// CHECK-NEXT:     %h = isa.buffer : !isa.lmu<tokens x 256>
// CHECK-NEXT:     isa.embed dst=%h table=hbm[0] index=token ids=hbm[900000] limit=64 columns=256 type=f16 rows=tokens
// CHECK-NEXT:     %n = isa.buffer : !isa.lmu<tokens x 256>
// CHECK-NEXT:     isa.rms_norm dst=%n a=%h epsilon=1.0e-05 columns=256 rows=tokens
// CHECK-NEXT:     %v = isa.buffer : !isa.lmu<tokens x 128>
// CHECK-NEXT:     isa.matmul dst=%v src=%n weight=hbm[400000] k=256 n=128 type=f16 rows=tokens prefetch=32
// CHECK-NEXT:     %k = isa.buffer : !isa.lmu<tokens x 128>
// CHECK-NEXT:     isa.matmul dst=%k src=%n weight=hbm[300000] k=256 n=128 type=f16 rows=tokens
// CHECK-NEXT:     %q = isa.buffer : !isa.lmu<tokens x 256>
// CHECK-NEXT:     isa.matmul dst=%q src=%n weight=hbm[100000] k=256 n=256 type=f16 rows=tokens
// CHECK-NEXT:     isa.store_value cache=hbm[600000] pitch=8192 src=%v heads=2 size=64 limit=64 type=f16 rows=tokens
// CHECK-NEXT:     isa.unary function=neg dst=%k a=%k columns=128 rows=tokens
// CHECK-NEXT:     isa.unary function=neg dst=%q a=%q columns=256 rows=tokens
// CHECK-NEXT:     isa.store_key cache=hbm[500000] pitch=8192 src=%k heads=2 size=64 limit=64 type=f16 rows=tokens
// CHECK-NEXT:     %s = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.scores dst=%s query=%q cache=hbm[500000] size=64 scale=0.125 type=f16 rows=tokens
// CHECK-NEXT:     isa.softmax dst=%s src=%s rows=tokens
// CHECK-NEXT:     isa.values dst=%q src=%s cache=hbm[600000] size=64 limit=64 type=f16 rows=tokens
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT: }
// CHECK:      builtin.module attributes {lpu.target = "u55c", lpu.max_length = 64 : i64, isa.cycles_before = 444 : i64, isa.cycles = 394 : i64} {
// CHECK-NEXT:   func.func @main() {
// CHECK-NEXT:     %h = isa.buffer : !isa.lmu<tokens x 256>
// CHECK-NEXT:     isa.embed dst=%h table=hbm[0] index=token ids=hbm[900000] limit=64 columns=256 type=f16 rows=tokens
// CHECK-NEXT:     %a = isa.buffer : !isa.lmu<tokens x 256>
// CHECK-NEXT:     isa.matmul dst=%a src=%h weight=hbm[100000] k=256 n=256 type=f16 rows=tokens prefetch=64
// CHECK-NEXT:     %b = isa.buffer : !isa.lmu<tokens x 128>
// CHECK-NEXT:     isa.matmul dst=%b src=%a weight=hbm[300000] k=256 n=128 type=f16 rows=tokens prefetch=32
// CHECK-NEXT:     isa.load dst=%a src=hbm[500000] columns=256
// CHECK-NEXT:     isa.binary function=add dst=%b a=%b b=%a columns=128 rows=tokens
// CHECK-NEXT:     isa.store_key cache=hbm[500000] pitch=8192 src=%b heads=2 size=64 limit=64 type=f16 rows=tokens
// CHECK-NEXT:     %s = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     isa.scores dst=%s query=%a cache=hbm[500000] size=64 scale=0.125 type=f16 rows=tokens
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT: }
// CHECK:      builtin.module attributes {lpu.target = "u55c", lpu.max_length = 64 : i64, isa.cycles_before = 89 : i64, isa.cycles = 89 : i64} {
// CHECK-NEXT:   func.func @main() {
// CHECK-NEXT:     %h = isa.buffer : !isa.lmu<tokens x 256>
// CHECK-NEXT:     isa.embed dst=%h table=hbm[0] index=token ids=hbm[900000] limit=64 columns=256 type=f16 rows=tokens
// CHECK-NEXT:     isa.set dst=r9 value=0
// CHECK-NEXT:     isa.unary function=neg dst=%h[r9] a=%h[64] columns=64 rows=tokens
// CHECK-NEXT:     isa.add dst=r9 a=r9 b=zero value=128
// CHECK-NEXT:     isa.unary function=neg dst=%h[r9] a=%h[64] columns=64 rows=tokens
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT: }
// CHECK:      builtin.module attributes {lpu.target = "u55c", lpu.max_length = 64 : i64, isa.cycles_before = 83067 : i64, isa.cycles = 83067 : i64} {
// CHECK-NEXT:   func.func @main() {
// CHECK-NEXT:     %sums = isa.buffer : !isa.lmu<1 x 2>
// CHECK-NEXT:     %a = isa.buffer : !isa.lmu<1 x 2500000>
// CHECK-NEXT:     isa.load dst=%a src=hbm[0] columns=2500000
// CHECK-NEXT:     isa.reduce function=sum dst=%sums a=%a columns=2500000 rows=tokens
// CHECK-NEXT:     %b = isa.buffer : !isa.lmu<1 x 2500000>
// CHECK-NEXT:     isa.load dst=%b src=hbm[20000000] columns=2500000
// CHECK-NEXT:     isa.reduce function=sum dst=%sums[1] a=%b columns=2500000 rows=tokens
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT: }
