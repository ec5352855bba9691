// RUN: hyperdex-opt %s --split-input-file --verify-diagnostics --parsing-diagnostics | filecheck %s

func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 576>
  isa.load dst=%h src=hbm[0] columns=16777216
  func.return
}
// CHECK: isa.load: columns is 16777216, must be in 0..16777215

// -----

func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 576>
  isa.load dst=%h src=hbm[-1] columns=1
  func.return
}
// CHECK: isa.load: src.offset is -1, must be in 0..1099511627775

// -----

func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 576 at 16777215>
  isa.load dst=%h[1] src=hbm[0] columns=1
  func.return
}
// CHECK: isa.load: dst.address is 16777216, must be in 0..16777215

// -----

"builtin.module"() ({
  "isa.set"() <{dst = 32 : i64, value = 0 : i64}> : () -> ()
}) : () -> ()
// CHECK: isa.set: dst is 32, must be in 0..31

// -----

"builtin.module"() ({
  %h = "isa.buffer"() : () -> !isa.lmu<tokens x 576>
  "isa.unary"(%h, %h) <{function = "sin", columns = 1 : i64, rows = 1 : i64}> : (!isa.lmu<tokens x 576>, !isa.lmu<tokens x 576>) -> ()
}) : () -> ()
// CHECK: isa.unary: function is 'sin', must be one of copy, neg, exp

// -----

"builtin.module"() ({
  %h = "isa.buffer"() : () -> tensor<4xf32>
}) : () -> ()
// CHECK: isa.buffer

// -----

func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 576>
  isa.matmul dst=%h src=%h[64] weight=hbm[0] k=576 n=64 type=f16 rows=tokens
  func.return
}
// CHECK: isa.matmul: src reaches word 639 of rows that have 576 words

// -----

func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 576>
  isa.unary function=exp dst=%h a=%h[1, group 64] groups=9 columns=64 rows=tokens
  func.return
}
// CHECK: isa.unary: a reaches word 576 of rows that have 576 words

// -----

func.func @main() {
  %h = isa.buffer : !isa.lmu<0 x 576>
  func.return
}
// CHECK: isa.lmu: 0 rows, must be at least 1

// -----

func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 0>
  func.return
}
// CHECK: isa.lmu: 0 words in a row, must be in 1..16777215

// -----

func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 1 at 16777216>
  func.return
}
// CHECK: isa.lmu: address 16777216, must be in 0..16777215

// -----

func.func @main() {
  isa.repeat 0 {
  }
  func.return
}
// CHECK: isa.repeat: trip count 0, must be in 1..4294967295

// -----

func.func @main() {
  isa.call @layer()
  func.return
}
// CHECK: isa.call: no function @layer

// -----

func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 576 at 0>
  isa.call @layer(%h) : !isa.lmu<tokens x 576 at 0>
  func.return
}
func.func @layer(%h: !isa.lmu<tokens x 576 at 64>) {
  func.return
}
// CHECK: isa.call: @layer takes (!isa.lmu<tokens x 576 at 64>), is passed (!isa.lmu<tokens x 576 at 0>)

// -----

func.func @main() {
  isa.add dst=r9 a=r9
  func.return
}
// CHECK: isa.add: expected b=

// -----

func.func @main() {
  isa.add dst=r9 a=r9 a=r9
  func.return
}
// CHECK: isa.add: a stands twice

// -----

func.func @main() {
  isa.add dst=r32 a=r9 b=r9
  func.return
}
// CHECK: no register 'r32'

// -----

func.func @main() {
  isa.load dst=%h src=hbm[0] columns=1
  func.return
}
// CHECK: buffer used before its definition

// -----

func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 576>
  isa.unary function=exp dst=%h[row 1] a=%h columns=1 rows=tokens
  func.return
}
// CHECK: the row stride is the buffer's width, or 0

// -----

func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 576>
  isa.rms_norm dst=%h a=%h epsilon=1.0e+39 columns=1 rows=tokens
  func.return
}
// CHECK: outside float32

// -----

func.func @main() {
  isa.skip_unless r99 = 1 {
  }
  func.return
}
// CHECK: no register 'r99'; there are zero, tokens, ..., r0 to r31

// -----

func.func @main() {
  isa.skip_unless r9 = 140737488355328 {
  }
  func.return
}
// CHECK: isa.skip_unless: value 140737488355328, must be in -140737488355328..140737488355327

// -----

func.func @main() {
  "isa.skip_unless"() <{a = 32 : i64, value = 0 : i64}> ({
    isa.set dst=r9 value=0
  }) : () -> ()
  func.return
}
// CHECK: isa.skip_unless: register 32, must be in 0..31

// -----

func.func @main() {
  "isa.skip_unless"() <{a = 9 : i64, value = 0 : i64}> ({
  ^bb0(%x: !isa.lmu<1 x 8>):
  }) : () -> ()
  func.return
}
// CHECK: isa.skip_unless: the body takes no arguments

// -----

func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 576>
  isa.send src=%h hop=0 parts=4 pitch=145 columns=144 rows=tokens
  func.return
}
// CHECK: isa.send: src reaches word 579 of rows that have 576 words

// -----

func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 576>
  isa.receive dst=%h[16] hop=65536 parts=4 pitch=140 columns=140 rows=tokens
  func.return
}
// CHECK: isa.receive: hop is 65536, must be in 0..65535

// -----

func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 576>
  isa.receive dst=%h[17] hop=1 parts=4 pitch=140 columns=140 rows=tokens
  func.return
}
// CHECK: isa.receive: dst reaches word 576 of rows that have 576 words

// -----

func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 576>
  isa.select_columns dst=%h src=%h[8] index=device columns=144 limit=569 rows=tokens
  func.return
}
// CHECK: isa.select_columns: src reaches word 576 of rows that have 576 words

// -----

func.func @main() {
  isa.multiply dst=r16 a=device
  func.return
}
// CHECK: isa.multiply: expected value=

// -----

func.func @main() {
  isa.repeat_rows many {
  }
  func.return
}
// CHECK: no register 'many'

// -----

func.func @main() {
  "isa.repeat_rows"() <{rows = 32 : i64}> ({
    isa.set dst=r9 value=0
  }) : () -> ()
  func.return
}
// CHECK: isa.repeat_rows: register 32, must be in 0..31

// -----

func.func @main() {
  "isa.repeat_rows"() <{rows = 1 : i64}> ({
  ^bb0(%x: !isa.lmu<1 x 8>):
  }) : () -> ()
  func.return
}
// CHECK: isa.repeat_rows: the body takes no arguments

// -----

func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 8>
  isa.top_k dst=%h src=%h columns=9 k=2 rows=tokens
  func.return
}
// CHECK: isa.top_k: src reaches word 8 of rows that have 8 words

// -----

func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 576>
  isa.send src=%h hop=4 parts=4 pitch=144 columns=144 rows=tokens
  func.return
}
// CHECK: isa.send: hop 4 around a ring of 4, must be less

// -----

func.func @main() {
  %h = isa.buffer : !isa.lmu<tokens x 576>
  isa.receive dst=%h hop=0 parts=0 pitch=144 columns=144 rows=tokens
  func.return
}
// CHECK: isa.receive: hop 0 around a ring of 0, must be less
