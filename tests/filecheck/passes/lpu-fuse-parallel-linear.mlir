// RUN: hyperdex-opt %s -p lpu-fuse-parallel-linear --split-input-file | filecheck %s
// The first five become one matrix each; the others must stay.

func.func @projections(%x: tensor<?x64xf32>, %cos: tensor<?x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x16xf32> {
  %wq = lpu.weight "q.weight" : tensor<64x64xf16>
  %bq = lpu.weight "q.bias" : tensor<64xf32>
  %q = lpu.linear %x by %wq bias %bq : tensor<64xf32> : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %wk = lpu.weight "k.weight" : tensor<32x64xf16>
  %bk = lpu.weight "k.bias" : tensor<32xf32>
  %k = lpu.linear %x by %wk bias %bk : tensor<32xf32> : tensor<?x64xf32>, tensor<32x64xf16> -> tensor<?x32xf32>
  %wv = lpu.weight "v.weight" : tensor<32x64xf16>
  %bv = lpu.weight "v.bias" : tensor<32xf32>
  %v = lpu.linear %x by %wv bias %bv : tensor<32xf32> : tensor<?x64xf32>, tensor<32x64xf16> -> tensor<?x32xf32>
  %qh = lpu.reshape %q : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
  %kh = lpu.reshape %k : (tensor<?x32xf32>) -> tensor<?x2x16xf32>
  %vh = lpu.reshape %v : (tensor<?x32xf32>) -> tensor<?x2x16xf32>
  %qr = lpu.rotary %qh cos %cos sin %sin style half : (tensor<?x4x16xf32>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x4x16xf32>
  %kr = lpu.rotary %kh cos %cos sin %sin style half : (tensor<?x2x16xf32>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x2x16xf32>
  %o = lpu.attention %qr, %kr, %vh slot 0 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x2x16xf32>, tensor<?x2x16xf32>) -> tensor<?x4x16xf32>
  func.return %o : tensor<?x4x16xf32>
}
// -----
func.func @scaled_query_and_normed_key(%x: tensor<?x64xf32>) -> tensor<?x4x16xf32> {
  %s = lpu.constant 2.500000e-01 : tensor<f32>
  %n = lpu.weight "k_norm.weight" : tensor<16xf32>
  %wq = lpu.weight "q.weight" : tensor<64x64xf16>
  %wk = lpu.weight "k.weight" : tensor<64x64xf16>
  %wv = lpu.weight "v.weight" : tensor<64x64xf16>
  %v = lpu.linear %x by %wv : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %q = lpu.linear %x by %wq : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %k = lpu.linear %x by %wk : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %qs = lpu.mul %s, %q : (tensor<f32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %qh = lpu.reshape %qs : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
  %kh = lpu.reshape %k : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
  %kn = lpu.rms_norm %kh weight %n : tensor<16xf32> epsilon 1.000000e-05 : tensor<?x4x16xf32>
  %vh = lpu.reshape %v : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
  %o = lpu.attention %qh, %kn, %vh slot 0 scale 1.000000e+00 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  func.return %o : tensor<?x4x16xf32>
}
// -----
func.func @gate(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
  %wu = lpu.weight "up.weight" : tensor<96x64xbf16>
  %u = lpu.linear %x by %wu : tensor<?x64xf32>, tensor<96x64xbf16> -> tensor<?x96xf32>
  %wg = lpu.weight "gate.weight" : tensor<96x64xbf16>
  %g = lpu.linear %x by %wg : tensor<?x64xf32>, tensor<96x64xbf16> -> tensor<?x96xf32>
  %a = lpu.silu %g : tensor<?x96xf32>
  %y = lpu.mul %u, %a : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
  func.return %y : tensor<?x96xf32>
}
// -----
func.func @gate_without_activation(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
  %wg = lpu.weight "gate.weight" : tensor<96x64xf16>
  %bg = lpu.weight "gate.bias" : tensor<96xf32>
  %wu = lpu.weight "up.weight" : tensor<96x64xf16>
  %bu = lpu.weight "up.bias" : tensor<96xf32>
  %g = lpu.linear %x by %wg bias %bg : tensor<96xf32> : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32>
  %u = lpu.linear %x by %wu bias %bu : tensor<96xf32> : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32>
  %y = lpu.mul %g, %u : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
  func.return %y : tensor<?x96xf32>
}
// -----
func.func @halves_of_one(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
  %w = lpu.weight "gate_up.weight" : tensor<192x64xf16>
  %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<192x64xf16> -> tensor<?x192xf32>
  %g = lpu.slice %y dim 1 from 0 to 96 : (tensor<?x192xf32>) -> tensor<?x96xf32>
  %u = lpu.slice %y dim 1 from 96 to 192 : (tensor<?x192xf32>) -> tensor<?x96xf32>
  %a = lpu.gelu_tanh %g : tensor<?x96xf32>
  %z = lpu.mul %u, %a : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
  func.return %z : tensor<?x96xf32>
}
// -----
func.func @halves_the_other_way_round(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
  %w = lpu.weight "up_gate.weight" : tensor<192x64xf16>
  %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<192x64xf16> -> tensor<?x192xf32>
  %u = lpu.slice %y dim 1 from 0 to 96 : (tensor<?x192xf32>) -> tensor<?x96xf32>
  %g = lpu.slice %y dim 1 from 96 to 192 : (tensor<?x192xf32>) -> tensor<?x96xf32>
  %a = lpu.silu %g : tensor<?x96xf32>
  %z = lpu.mul %u, %a : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
  func.return %z : tensor<?x96xf32>
}
// -----
func.func @key_depends_on_query(%x: tensor<?x64xf32>) -> tensor<?x4x16xf32> {
  %wq = lpu.weight "q.weight" : tensor<64x64xf16>
  %wk = lpu.weight "k.weight" : tensor<64x64xf16>
  %wv = lpu.weight "v.weight" : tensor<64x64xf16>
  %q = lpu.linear %x by %wq : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %k = lpu.linear %q by %wk : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %v = lpu.linear %x by %wv : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %qh = lpu.reshape %q : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
  %kh = lpu.reshape %k : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
  %vh = lpu.reshape %v : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
  %o = lpu.attention %qh, %kh, %vh slot 0 scale 1.000000e+00 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  func.return %o : tensor<?x4x16xf32>
}
// -----
func.func @one_linear_twice(%x: tensor<?x64xf32>) -> tensor<?x4x16xf32> {
  %wq = lpu.weight "q.weight" : tensor<64x64xf16>
  %wk = lpu.weight "k.weight" : tensor<64x64xf16>
  %q = lpu.linear %x by %wq : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %k = lpu.linear %x by %wk : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %qh = lpu.reshape %q : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
  %kh = lpu.reshape %k : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
  %o = lpu.attention %qh, %kh, %kh slot 0 scale 1.000000e+00 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  func.return %o : tensor<?x4x16xf32>
}
// -----
func.func @tied_weight(%x: tensor<?x64xf32>) -> (tensor<?x64xf32>, tensor<?x64xf32>) {
  %w = lpu.weight "a.weight" : tensor<64x64xf16>
  %v = lpu.weight "b.weight" : tensor<64x64xf16>
  %g = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %u = lpu.linear %x by %v : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %a = lpu.silu %g : tensor<?x64xf32>
  %y = lpu.mul %a, %u : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %z = lpu.linear %y by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  func.return %y, %z : tensor<?x64xf32>, tensor<?x64xf32>
}
// -----
func.func @key_named_twice(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %w = lpu.weight "a.weight" : tensor<64x64xf16>
  %v = lpu.weight "a.weight" : tensor<64x64xf16>
  %g = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %u = lpu.linear %x by %v : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %a = lpu.silu %g : tensor<?x64xf32>
  %y = lpu.mul %a, %u : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
// -----
func.func @matrix_types_differ(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %w = lpu.weight "a.weight" : tensor<64x64xf16>
  %v = lpu.weight "b.weight" : tensor<64x64xbf16>
  %g = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %u = lpu.linear %x by %v : tensor<?x64xf32>, tensor<64x64xbf16> -> tensor<?x64xf32>
  %y = lpu.mul %g, %u : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
// -----
func.func @one_of_two_biased(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %w = lpu.weight "a.weight" : tensor<64x64xf16>
  %v = lpu.weight "b.weight" : tensor<64x64xf16>
  %b = lpu.weight "b.bias" : tensor<64xf32>
  %g = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %u = lpu.linear %x by %v bias %b : tensor<64xf32> : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %y = lpu.mul %g, %u : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
// -----
func.func @one_carries_a_scale(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %w = lpu.weight "a.weight" : tensor<64x64xf16>
  %v = lpu.weight "b.weight" : tensor<64x64xf16>
  %g = lpu.linear %x by %w scale 2.000000e+00 : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %u = lpu.linear %x by %v : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %y = lpu.mul %g, %u : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
// -----
func.func @gate_used_twice(%x: tensor<?x64xf32>) -> (tensor<?x64xf32>, tensor<?x64xf32>) {
  %w = lpu.weight "a.weight" : tensor<64x64xf16>
  %v = lpu.weight "b.weight" : tensor<64x64xf16>
  %g = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %u = lpu.linear %x by %v : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
  %a = lpu.silu %g : tensor<?x64xf32>
  %y = lpu.mul %a, %u : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return %y, %g : tensor<?x64xf32>, tensor<?x64xf32>
}

// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @projections(%x: tensor<?x64xf32>, %cos: tensor<?x16xf32>, %sin: tensor<?x16xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %0 = lpu.weight "v.weight", "k.weight", "q.weight" : tensor<128x64xf16>
// CHECK-NEXT:     %1 = lpu.weight "v.bias", "k.bias", "q.bias" : tensor<128xf32>
// CHECK-NEXT:     %vkq = lpu.linear %x by %0 bias %1 : tensor<128xf32> : tensor<?x64xf32>, tensor<128x64xf16> -> tensor<?x128xf32>
// CHECK-NEXT:     %v = lpu.slice %vkq dim 1 from 0 to 32 : (tensor<?x128xf32>) -> tensor<?x32xf32>
// CHECK-NEXT:     %k = lpu.slice %vkq dim 1 from 32 to 64 : (tensor<?x128xf32>) -> tensor<?x32xf32>
// CHECK-NEXT:     %q = lpu.slice %vkq dim 1 from 64 to 128 : (tensor<?x128xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %qh = lpu.reshape %q : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %kh = lpu.reshape %k : (tensor<?x32xf32>) -> tensor<?x2x16xf32>
// CHECK-NEXT:     %vh = lpu.reshape %v : (tensor<?x32xf32>) -> tensor<?x2x16xf32>
// CHECK-NEXT:     %qr = lpu.rotary %qh cos %cos sin %sin style half : (tensor<?x4x16xf32>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %kr = lpu.rotary %kh cos %cos sin %sin style half : (tensor<?x2x16xf32>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x2x16xf32>
// CHECK-NEXT:     %o = lpu.attention %qr, %kr, %vh slot 0 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x2x16xf32>, tensor<?x2x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %o : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @scaled_query_and_normed_key(%x: tensor<?x64xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %s = lpu.constant 2.500000e-01 : tensor<f32>
// CHECK-NEXT:     %n = lpu.weight "k_norm.weight" : tensor<16xf32>
// CHECK-NEXT:     %0 = lpu.weight "v.weight", "k.weight", "q.weight" : tensor<192x64xf16>
// CHECK-NEXT:     %vkq = lpu.linear %x by %0 : tensor<?x64xf32>, tensor<192x64xf16> -> tensor<?x192xf32>
// CHECK-NEXT:     %v = lpu.slice %vkq dim 1 from 0 to 64 : (tensor<?x192xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %k = lpu.slice %vkq dim 1 from 64 to 128 : (tensor<?x192xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %q = lpu.slice %vkq dim 1 from 128 to 192 : (tensor<?x192xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %qs = lpu.mul %s, %q : (tensor<f32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %qh = lpu.reshape %qs : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %kh = lpu.reshape %k : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %kn = lpu.rms_norm %kh weight %n : tensor<16xf32> epsilon 1.000000e-05 : tensor<?x4x16xf32>
// CHECK-NEXT:     %vh = lpu.reshape %v : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %o = lpu.attention %qh, %kn, %vh slot 0 scale 1.000000e+00 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %o : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @gate(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
// CHECK-NEXT:     %0 = lpu.weight "gate.weight", "up.weight" : tensor<192x64xbf16>
// CHECK-NEXT:     %y = lpu.linear %x by %0 gated then silu : tensor<?x64xf32>, tensor<192x64xbf16> -> tensor<?x96xf32>
// CHECK-NEXT:     func.return %y : tensor<?x96xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @gate_without_activation(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
// CHECK-NEXT:     %0 = lpu.weight "gate.weight", "up.weight" : tensor<192x64xf16>
// CHECK-NEXT:     %1 = lpu.weight "gate.bias", "up.bias" : tensor<192xf32>
// CHECK-NEXT:     %y = lpu.linear %x by %0 gated bias %1 : tensor<192xf32> : tensor<?x64xf32>, tensor<192x64xf16> -> tensor<?x96xf32>
// CHECK-NEXT:     func.return %y : tensor<?x96xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @halves_of_one(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
// CHECK-NEXT:     %w = lpu.weight "gate_up.weight" : tensor<192x64xf16>
// CHECK-NEXT:     %z = lpu.linear %x by %w gated then gelu_tanh : tensor<?x64xf32>, tensor<192x64xf16> -> tensor<?x96xf32>
// CHECK-NEXT:     func.return %z : tensor<?x96xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @halves_the_other_way_round(%x: tensor<?x64xf32>) -> tensor<?x96xf32> {
// CHECK-NEXT:     %w = lpu.weight "up_gate.weight" : tensor<192x64xf16>
// CHECK-NEXT:     %y = lpu.linear %x by %w : tensor<?x64xf32>, tensor<192x64xf16> -> tensor<?x192xf32>
// CHECK-NEXT:     %u = lpu.slice %y dim 1 from 0 to 96 : (tensor<?x192xf32>) -> tensor<?x96xf32>
// CHECK-NEXT:     %g = lpu.slice %y dim 1 from 96 to 192 : (tensor<?x192xf32>) -> tensor<?x96xf32>
// CHECK-NEXT:     %a = lpu.silu %g : tensor<?x96xf32>
// CHECK-NEXT:     %z = lpu.mul %u, %a : (tensor<?x96xf32>, tensor<?x96xf32>) -> tensor<?x96xf32>
// CHECK-NEXT:     func.return %z : tensor<?x96xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @key_depends_on_query(%x: tensor<?x64xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %wq = lpu.weight "q.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %wk = lpu.weight "k.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %wv = lpu.weight "v.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %q = lpu.linear %x by %wq : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %k = lpu.linear %q by %wk : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %v = lpu.linear %x by %wv : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %qh = lpu.reshape %q : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %kh = lpu.reshape %k : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %vh = lpu.reshape %v : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %o = lpu.attention %qh, %kh, %vh slot 0 scale 1.000000e+00 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %o : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @one_linear_twice(%x: tensor<?x64xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %wq = lpu.weight "q.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %wk = lpu.weight "k.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %q = lpu.linear %x by %wq : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %k = lpu.linear %x by %wk : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %qh = lpu.reshape %q : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %kh = lpu.reshape %k : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %o = lpu.attention %qh, %kh, %kh slot 0 scale 1.000000e+00 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %o : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @tied_weight(%x: tensor<?x64xf32>) -> (tensor<?x64xf32>, tensor<?x64xf32>) {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %v = lpu.weight "b.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %g = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %u = lpu.linear %x by %v : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %a = lpu.silu %g : tensor<?x64xf32>
// CHECK-NEXT:     %y = lpu.mul %a, %u : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %z = lpu.linear %y by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y, %z : tensor<?x64xf32>, tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @key_named_twice(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %v = lpu.weight "a.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %g = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %u = lpu.linear %x by %v : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %a = lpu.silu %g : tensor<?x64xf32>
// CHECK-NEXT:     %y = lpu.mul %a, %u : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @matrix_types_differ(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %v = lpu.weight "b.weight" : tensor<64x64xbf16>
// CHECK-NEXT:     %g = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %u = lpu.linear %x by %v : tensor<?x64xf32>, tensor<64x64xbf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %y = lpu.mul %g, %u : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @one_of_two_biased(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %v = lpu.weight "b.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %b = lpu.weight "b.bias" : tensor<64xf32>
// CHECK-NEXT:     %g = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %u = lpu.linear %x by %v bias %b : tensor<64xf32> : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %y = lpu.mul %g, %u : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @one_carries_a_scale(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %v = lpu.weight "b.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %g = lpu.linear %x by %w scale 2.000000e+00 : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %u = lpu.linear %x by %v : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %y = lpu.mul %g, %u : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @gate_used_twice(%x: tensor<?x64xf32>) -> (tensor<?x64xf32>, tensor<?x64xf32>) {
// CHECK-NEXT:     %w = lpu.weight "a.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %v = lpu.weight "b.weight" : tensor<64x64xf16>
// CHECK-NEXT:     %g = lpu.linear %x by %w : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %u = lpu.linear %x by %v : tensor<?x64xf32>, tensor<64x64xf16> -> tensor<?x64xf32>
// CHECK-NEXT:     %a = lpu.silu %g : tensor<?x64xf32>
// CHECK-NEXT:     %y = lpu.mul %a, %u : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %y, %g : tensor<?x64xf32>, tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
