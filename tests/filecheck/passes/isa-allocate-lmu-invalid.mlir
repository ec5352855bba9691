// RUN: hyperdex-opt %s -p isa-allocate-lmu --split-input-file --verify-diagnostics | filecheck %s
// What does not fit says how much there is, how much is needed, and which knob to turn.

builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 5000000 : i64} {
func.func @main() {
  %scores = isa.buffer : !isa.lmu<tokens x 5000000>
  isa.softmax dst=%scores src=%scores rows=tokens
  func.return
}
}
// -----
builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 8 : i64} {
func.func @main() {
  %a = isa.buffer : !isa.lmu<tokens x 3000000>
  %b = isa.buffer : !isa.lmu<tokens x 3000000>
  isa.unary function=neg dst=%b a=%a columns=3000000 rows=tokens
  func.return
}
}
// -----
func.func @main() {
  func.return
}
// -----
builtin.module attributes {"lpu.target" = "u56c", "lpu.max_length" = 8 : i64} {
func.func @main() {
  func.return
}
}
// -----
builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 8 : i64} {
func.func @main() {
  isa.call @main()
  func.return
}
}

// CHECK:      error: the LMU of u55c has 4,194,304 words; with one token in flight the buffers take 5,000,000, a row of the widest 5,000,000, as many as positions (max-length 5,000,000)
//
// CHECK:      error: the LMU of u55c has 4,194,304 words; with one token in flight the buffers take 6,000,000, a row of the widest 3,000,000
//
// CHECK:      error: the module has no string attribute lpu.target
//
// CHECK:      error: no target 'u56c'; there are asic, u55c
//
// CHECK:      error: @main calls itself
