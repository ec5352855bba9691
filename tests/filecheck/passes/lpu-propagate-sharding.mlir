// RUN: hyperdex-opt %s -p 'lpu-propagate-sharding' --split-input-file | filecheck %s
// What is sharded over two devices, and how; types stay those of whole values.

// Nine query heads on three KV heads: devices need KV heads 0, 1 and 1, 2.
builtin.module attributes {lpu.grid = #lpu.grid<2>} {
func.func @attention(%x: tensor<?x72xf32>, %cos: tensor<?x8xf32>, %sin: tensor<?x8xf32>) -> tensor<?x72xf32> {
  %wq = lpu.weight "q.weight" : tensor<72x72xf16>
  %wk = lpu.weight "k.weight" : tensor<24x72xf16>
  %wv = lpu.weight "v.weight" : tensor<24x72xf16>
  %bv = lpu.weight "v.bias" : tensor<24xf32>
  %n = lpu.weight "q_norm.weight" : tensor<8xf32>
  %q = lpu.linear %x by %wq : tensor<?x72xf32>, tensor<72x72xf16> -> tensor<?x72xf32>
  %k = lpu.linear %x by %wk : tensor<?x72xf32>, tensor<24x72xf16> -> tensor<?x24xf32>
  %v = lpu.linear %x by %wv bias %bv : tensor<24xf32> : tensor<?x72xf32>, tensor<24x72xf16> -> tensor<?x24xf32>
  %qh = lpu.reshape %q : (tensor<?x72xf32>) -> tensor<?x9x8xf32>
  %kh = lpu.reshape %k : (tensor<?x24xf32>) -> tensor<?x3x8xf32>
  %vh = lpu.reshape %v : (tensor<?x24xf32>) -> tensor<?x3x8xf32>
  %qn = lpu.rms_norm %qh weight %n : tensor<8xf32> epsilon 1.000000e-05 : tensor<?x9x8xf32>
  %qr = lpu.rotary %qn cos %cos sin %sin style half : (tensor<?x9x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>) -> tensor<?x9x8xf32>
  %o = lpu.attention %qr, %kh, %vh slot 0 scale 1.000000e+00 : (tensor<?x9x8xf32>, tensor<?x3x8xf32>, tensor<?x3x8xf32>) -> tensor<?x9x8xf32>
  %of = lpu.reshape %o : (tensor<?x9x8xf32>) -> tensor<?x72xf32>
  %wo = lpu.weight "o.weight" : tensor<72x72xf16>
  %y = lpu.linear %of by %wo : tensor<?x72xf32>, tensor<72x72xf16> -> tensor<?x72xf32>
  %h = lpu.add %x, %y : (tensor<?x72xf32>, tensor<?x72xf32>) -> tensor<?x72xf32>
  func.return %h : tensor<?x72xf32>
}
}
// -----
// One matrix for queries, keys and values: a segment for each.
builtin.module attributes {lpu.grid = #lpu.grid<2>} {
func.func @fused(%x: tensor<?x64xf32>) -> tensor<?x4x16xf32> {
  %w = lpu.weight "qkv.weight" : tensor<96x64xf16>
  %b = lpu.weight "qkv.bias" : tensor<96xf32>
  %y = lpu.linear %x by %w bias %b : tensor<96xf32> : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32>
  %r = lpu.reshape %y : (tensor<?x96xf32>) -> tensor<?x1x96xf32>
  %q = lpu.slice %r dim 2 from 0 to 64 : (tensor<?x1x96xf32>) -> tensor<?x1x64xf32>
  %k = lpu.slice %r dim 2 from 64 to 80 : (tensor<?x1x96xf32>) -> tensor<?x1x16xf32>
  %v = lpu.slice %y dim 1 from 80 to 96 : (tensor<?x96xf32>) -> tensor<?x16xf32>
  %qh = lpu.reshape %q : (tensor<?x1x64xf32>) -> tensor<?x4x16xf32>
  %vh = lpu.reshape %v : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
  %o = lpu.attention %qh, %k, %vh slot 0 scale 1.000000e+00 : (tensor<?x4x16xf32>, tensor<?x1x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
  func.return %o : tensor<?x4x16xf32>
}
}
// -----
// Gate and up in one matrix; the tied embedding table is there twice; what is scalar or broadcast stays.
builtin.module attributes {lpu.grid = #lpu.grid<2>} {
func.func @main(%ids: tensor<?xi64>) -> tensor<?x99xf32> {
  %e = lpu.weight "embed.weight" : tensor<99x64xf16>
  %x = lpu.embedding %e at %ids : (tensor<99x64xf16>, tensor<?xi64>) -> tensor<?x64xf32>
  %n = lpu.rms_norm %x epsilon 1.000000e-05 : tensor<?x64xf32>
  %w = lpu.weight "gate_up.weight" : tensor<130x64xf16>
  %gu = lpu.linear %n by %w : tensor<?x64xf32>, tensor<130x64xf16> -> tensor<?x130xf32>
  %g = lpu.slice %gu dim 1 from 0 to 65 : (tensor<?x130xf32>) -> tensor<?x65xf32>
  %u = lpu.slice %gu dim 1 from 65 to 130 : (tensor<?x130xf32>) -> tensor<?x65xf32>
  %a = lpu.silu %g : tensor<?x65xf32>
  %m = lpu.mul %a, %u : (tensor<?x65xf32>, tensor<?x65xf32>) -> tensor<?x65xf32>
  %d = lpu.weight "down.weight" : tensor<64x65xf16>
  %y = lpu.linear %m by %d : tensor<?x65xf32>, tensor<64x65xf16> -> tensor<?x64xf32>
  %s = lpu.weight "scale" : tensor<64xf32>
  %ys = lpu.mul %y, %s : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
  %h = lpu.add %ys, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %mean = lpu.mean %h : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %c = lpu.sub %h, %mean : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
  %half = lpu.constant 5.000000e-01 : tensor<f32>
  %l = lpu.linear %c by %e : tensor<?x64xf32>, tensor<99x64xf16> -> tensor<?x99xf32>
  %lh = lpu.mul %l, %half : (tensor<?x99xf32>, tensor<f32>) -> tensor<?x99xf32>
  %r = lpu.select_rows %lh : tensor<?x99xf32>
  func.return %r : tensor<?x99xf32>
}
}
// -----
// Merged and fused linears are sharded as well: the rows of the gate, then those of the other factor.
builtin.module attributes {lpu.grid = #lpu.grid<2>} {
func.func @gated(%x: tensor<?x64xf32>, %h: tensor<?x96xf32>) -> tensor<?x96xf32> {
  %w = lpu.weight "gate_up.weight" : tensor<192x64xf16>
  %b = lpu.weight "gate_up.bias" : tensor<192xf32>
  %y = lpu.linear %x by %w gated bias %b : tensor<192xf32> then silu plus %h : tensor<?x64xf32>, tensor<192x64xf16> -> tensor<?x96xf32>
  func.return %y : tensor<?x96xf32>
}
}

// CHECK:      builtin.module attributes {lpu.grid = #lpu.grid<2>} {
// CHECK-NEXT:   func.func @attention(%x: tensor<?x72xf32>, %cos: tensor<?x8xf32>, %sin: tensor<?x8xf32>) -> tensor<?x72xf32> {
// CHECK-NEXT:     %wq = lpu.weight "q.weight" {lpu.sharding = #lpu.sharding<0, 40 of 72 at [0, 40]>} : tensor<72x72xf16>
// CHECK-NEXT:     %wk = lpu.weight "k.weight" {lpu.sharding = #lpu.sharding<0, 16 of 24 at [0, 8]>} : tensor<24x72xf16>
// CHECK-NEXT:     %wv = lpu.weight "v.weight" {lpu.sharding = #lpu.sharding<0, 16 of 24 at [0, 8]>} : tensor<24x72xf16>
// CHECK-NEXT:     %bv = lpu.weight "v.bias" {lpu.sharding = #lpu.sharding<0, 16 of 24 at [0, 8]>} : tensor<24xf32>
// CHECK-NEXT:     %n = lpu.weight "q_norm.weight" : tensor<8xf32>
// CHECK-NEXT:     %q = lpu.linear %x by %wq {lpu.sharding = #lpu.sharding<1, 40 of 72 at [0, 40]>} : tensor<?x72xf32>, tensor<72x72xf16> -> tensor<?x72xf32>
// CHECK-NEXT:     %k = lpu.linear %x by %wk {lpu.sharding = #lpu.sharding<1, 16 of 24 at [0, 8]>} : tensor<?x72xf32>, tensor<24x72xf16> -> tensor<?x24xf32>
// CHECK-NEXT:     %v = lpu.linear %x by %wv bias %bv : tensor<24xf32> {lpu.sharding = #lpu.sharding<1, 16 of 24 at [0, 8]>} : tensor<?x72xf32>, tensor<24x72xf16> -> tensor<?x24xf32>
// CHECK-NEXT:     %qh = lpu.reshape %q {lpu.sharding = #lpu.sharding<1, 5 of 9 at [0, 5]>} : (tensor<?x72xf32>) -> tensor<?x9x8xf32>
// CHECK-NEXT:     %kh = lpu.reshape %k {lpu.sharding = #lpu.sharding<1, 2 of 3 at [0, 1]>} : (tensor<?x24xf32>) -> tensor<?x3x8xf32>
// CHECK-NEXT:     %vh = lpu.reshape %v {lpu.sharding = #lpu.sharding<1, 2 of 3 at [0, 1]>} : (tensor<?x24xf32>) -> tensor<?x3x8xf32>
// CHECK-NEXT:     %qn = lpu.rms_norm %qh weight %n : tensor<8xf32> epsilon 1.000000e-05 {lpu.sharding = #lpu.sharding<1, 5 of 9 at [0, 5]>} : tensor<?x9x8xf32>
// CHECK-NEXT:     %qr = lpu.rotary %qn cos %cos sin %sin style half {lpu.sharding = #lpu.sharding<1, 5 of 9 at [0, 5]>} : (tensor<?x9x8xf32>, tensor<?x8xf32>, tensor<?x8xf32>) -> tensor<?x9x8xf32>
// CHECK-NEXT:     %o = lpu.attention %qr, %kh, %vh slot 0 scale 1.000000e+00 {lpu.sharding = #lpu.sharding<1, 5 of 9 at [0, 5]>} : (tensor<?x9x8xf32>, tensor<?x3x8xf32>, tensor<?x3x8xf32>) -> tensor<?x9x8xf32>
// CHECK-NEXT:     %of = lpu.reshape %o {lpu.sharding = #lpu.sharding<1, 40 of 72 at [0, 40]>} : (tensor<?x9x8xf32>) -> tensor<?x72xf32>
// CHECK-NEXT:     %wo = lpu.weight "o.weight" {lpu.sharding = #lpu.sharding<0, 36 of 72 at [0, 36]>} : tensor<72x72xf16>
// CHECK-NEXT:     %y = lpu.linear %of by %wo {lpu.sharding = #lpu.sharding<1, 36 of 72 at [0, 36]>} : tensor<?x72xf32>, tensor<72x72xf16> -> tensor<?x72xf32>
// CHECK-NEXT:     %h = lpu.add %x, %y {lpu.sharding = #lpu.sharding<1, 36 of 72 at [0, 36]>} : (tensor<?x72xf32>, tensor<?x72xf32>) -> tensor<?x72xf32>
// CHECK-NEXT:     func.return %h : tensor<?x72xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module attributes {lpu.grid = #lpu.grid<2>} {
// CHECK-NEXT:   func.func @fused(%x: tensor<?x64xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %w = lpu.weight "qkv.weight" {lpu.sharding = #lpu.sharding<0, 32 of 64 at [0, 32], 16 of 80 at [64, 64], 16 of 96 at [80, 80]>} : tensor<96x64xf16>
// CHECK-NEXT:     %b = lpu.weight "qkv.bias" {lpu.sharding = #lpu.sharding<0, 32 of 64 at [0, 32], 16 of 80 at [64, 64], 16 of 96 at [80, 80]>} : tensor<96xf32>
// CHECK-NEXT:     %y = lpu.linear %x by %w bias %b : tensor<96xf32> {lpu.sharding = #lpu.sharding<1, 32 of 64 at [0, 32], 16 of 80 at [64, 64], 16 of 96 at [80, 80]>} : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32>
// CHECK-NEXT:     %r = lpu.reshape %y {lpu.sharding = #lpu.sharding<2, 32 of 64 at [0, 32], 16 of 80 at [64, 64], 16 of 96 at [80, 80]>} : (tensor<?x96xf32>) -> tensor<?x1x96xf32>
// CHECK-NEXT:     %q = lpu.slice %r dim 2 from 0 to 64 {lpu.sharding = #lpu.sharding<2, 32 of 64 at [0, 32]>} : (tensor<?x1x96xf32>) -> tensor<?x1x64xf32>
// CHECK-NEXT:     %k = lpu.slice %r dim 2 from 64 to 80 {lpu.sharding = #lpu.sharding<1, 1 of 1 at [0, 0]>} : (tensor<?x1x96xf32>) -> tensor<?x1x16xf32>
// CHECK-NEXT:     %v = lpu.slice %y dim 1 from 80 to 96 {lpu.sharding = #lpu.sharding<1, 16 of 16 at [0, 0]>} : (tensor<?x96xf32>) -> tensor<?x16xf32>
// CHECK-NEXT:     %qh = lpu.reshape %q {lpu.sharding = #lpu.sharding<1, 2 of 4 at [0, 2]>} : (tensor<?x1x64xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %vh = lpu.reshape %v {lpu.sharding = #lpu.sharding<1, 1 of 1 at [0, 0]>} : (tensor<?x16xf32>) -> tensor<?x1x16xf32>
// CHECK-NEXT:     %o = lpu.attention %qh, %k, %vh slot 0 scale 1.000000e+00 {lpu.sharding = #lpu.sharding<1, 2 of 4 at [0, 2]>} : (tensor<?x4x16xf32>, tensor<?x1x16xf32>, tensor<?x1x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %o : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module attributes {lpu.grid = #lpu.grid<2>} {
// CHECK-NEXT:   func.func @main(%ids: tensor<?xi64>) -> tensor<?x99xf32> {
// CHECK-NEXT:     %e = lpu.weight "embed.weight" {lpu.sharding = #lpu.sharding<0, 50 of 99 at [0, 50]>} : tensor<99x64xf16>
// CHECK-NEXT:     %e_1 = lpu.weight "embed.weight" {lpu.sharding = #lpu.sharding<1, 32 of 64 at [0, 32]>} : tensor<99x64xf16>
// CHECK-NEXT:     %x = lpu.embedding %e_1 at %ids {lpu.sharding = #lpu.sharding<1, 32 of 64 at [0, 32]>} : (tensor<99x64xf16>, tensor<?xi64>) -> tensor<?x64xf32>
// CHECK-NEXT:     %n = lpu.rms_norm %x epsilon 1.000000e-05 : tensor<?x64xf32>
// CHECK-NEXT:     %w = lpu.weight "gate_up.weight" {lpu.sharding = #lpu.sharding<0, 33 of 65 at [0, 33], 33 of 130 at [65, 98]>} : tensor<130x64xf16>
// CHECK-NEXT:     %gu = lpu.linear %n by %w {lpu.sharding = #lpu.sharding<1, 33 of 65 at [0, 33], 33 of 130 at [65, 98]>} : tensor<?x64xf32>, tensor<130x64xf16> -> tensor<?x130xf32>
// CHECK-NEXT:     %g = lpu.slice %gu dim 1 from 0 to 65 {lpu.sharding = #lpu.sharding<1, 33 of 65 at [0, 33]>} : (tensor<?x130xf32>) -> tensor<?x65xf32>
// CHECK-NEXT:     %u = lpu.slice %gu dim 1 from 65 to 130 {lpu.sharding = #lpu.sharding<1, 33 of 65 at [0, 33]>} : (tensor<?x130xf32>) -> tensor<?x65xf32>
// CHECK-NEXT:     %a = lpu.silu %g {lpu.sharding = #lpu.sharding<1, 33 of 65 at [0, 33]>} : tensor<?x65xf32>
// CHECK-NEXT:     %m = lpu.mul %a, %u {lpu.sharding = #lpu.sharding<1, 33 of 65 at [0, 33]>} : (tensor<?x65xf32>, tensor<?x65xf32>) -> tensor<?x65xf32>
// CHECK-NEXT:     %d = lpu.weight "down.weight" {lpu.sharding = #lpu.sharding<0, 32 of 64 at [0, 32]>} : tensor<64x65xf16>
// CHECK-NEXT:     %y = lpu.linear %m by %d {lpu.sharding = #lpu.sharding<1, 32 of 64 at [0, 32]>} : tensor<?x65xf32>, tensor<64x65xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %s = lpu.weight "scale" {lpu.sharding = #lpu.sharding<0, 32 of 64 at [0, 32]>} : tensor<64xf32>
// CHECK-NEXT:     %ys = lpu.mul %y, %s {lpu.sharding = #lpu.sharding<1, 32 of 64 at [0, 32]>} : (tensor<?x64xf32>, tensor<64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %h = lpu.add %ys, %x {lpu.sharding = #lpu.sharding<1, 32 of 64 at [0, 32]>} : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %mean = lpu.mean %h : (tensor<?x64xf32>) -> tensor<?x1xf32>
// CHECK-NEXT:     %c = lpu.sub %h, %mean {lpu.sharding = #lpu.sharding<1, 32 of 64 at [0, 32]>} : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %half = lpu.constant 5.000000e-01 : tensor<f32>
// CHECK-NEXT:     %l = lpu.linear %c by %e {lpu.sharding = #lpu.sharding<1, 50 of 99 at [0, 50]>} : tensor<?x64xf32>, tensor<99x64xf16> -> tensor<?x99xf32>
// CHECK-NEXT:     %lh = lpu.mul %l, %half {lpu.sharding = #lpu.sharding<1, 50 of 99 at [0, 50]>} : (tensor<?x99xf32>, tensor<f32>) -> tensor<?x99xf32>
// CHECK-NEXT:     %r = lpu.select_rows %lh {lpu.sharding = #lpu.sharding<1, 50 of 99 at [0, 50]>} : tensor<?x99xf32>
// CHECK-NEXT:     func.return %r : tensor<?x99xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module attributes {lpu.grid = #lpu.grid<2>} {
// CHECK-NEXT:   func.func @gated(%x: tensor<?x64xf32>, %h: tensor<?x96xf32>) -> tensor<?x96xf32> {
// CHECK-NEXT:     %w = lpu.weight "gate_up.weight" {lpu.sharding = #lpu.sharding<0, 48 of 96 at [0, 48], 48 of 192 at [96, 144]>} : tensor<192x64xf16>
// CHECK-NEXT:     %b = lpu.weight "gate_up.bias" {lpu.sharding = #lpu.sharding<0, 48 of 96 at [0, 48], 48 of 192 at [96, 144]>} : tensor<192xf32>
// CHECK-NEXT:     %y = lpu.linear %x by %w gated bias %b : tensor<192xf32> then silu plus %h {lpu.sharding = #lpu.sharding<1, 48 of 96 at [0, 48]>} : tensor<?x64xf32>, tensor<192x64xf16> -> tensor<?x96xf32>
// CHECK-NEXT:     func.return %y : tensor<?x96xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
