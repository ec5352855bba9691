// RUN: hyperdex-opt %s -p lpu-hoist-select-rows --split-input-file | filecheck %s
// Selecting rows moves up through row-wise operations, but not into a layer, past other users, or twofold.

func.func @above_the_final_norm(%q: tensor<?x4x16xf32>) -> tensor<?x2x48xf32> {
  %k = lpu.attention %q, %q, %q slot 0 scale 1.000000e+00 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
  %x = lpu.reshape %k : (tensor<?x4x16xf32>) -> tensor<?x64xf32> loc("model.layers.0.self_attn")
  %hw = lpu.weight "lm_head.weight" : tensor<96x64xf16>
  
  %n = lpu.rms_norm %x epsilon 1.000000e-05 : tensor<?x64xf32> loc("model.norm")
  %l = lpu.linear %n by %hw : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32> loc("lm_head")
  %r = lpu.reshape %l : (tensor<?x96xf32>) -> tensor<?x2x48xf32>
  %s = lpu.select_rows %r : tensor<?x2x48xf32>
  func.return %s : tensor<?x2x48xf32>
}
// -----
func.func @not_into_a_layer(%q: tensor<?x4x16xf32>) -> tensor<?x96xf32> {
  %k = lpu.attention %q, %q, %q slot 0 scale 1.000000e+00 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32> loc("model.layers.0.self_attn")
  %x = lpu.reshape %k : (tensor<?x4x16xf32>) -> tensor<?x64xf32> loc("model.layers.0.self_attn")
  %hw = lpu.weight "lm_head.weight" : tensor<96x64xf16>
  
  %n = lpu.rms_norm %x epsilon 1.000000e-05 : tensor<?x64xf32> loc("model.layers.0.final_layer_norm")
  %l = lpu.linear %n by %hw : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32> loc("lm_head")
  %s = lpu.select_rows %l : tensor<?x96xf32>
  func.return %s : tensor<?x96xf32>
}
// -----
func.func @other_users(%x: tensor<?x64xf32>) -> (tensor<?x96xf32>, tensor<?x96xf32>) {
  %hw = lpu.weight "lm_head.weight" : tensor<96x64xf16>
  
  %l = lpu.linear %x by %hw : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32>
  %e = lpu.silu %l : tensor<?x96xf32>
  %s = lpu.select_rows %e : tensor<?x96xf32>
  func.return %s, %l : tensor<?x96xf32>, tensor<?x96xf32>
}
// -----
func.func @two_selections_for_one(%x: tensor<?x64xf32>, %y: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %a = lpu.add %x, %y : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %s = lpu.select_rows %a : tensor<?x64xf32>
  func.return %s : tensor<?x64xf32>
}
// -----
func.func @static_operands_stay(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %w = lpu.weight "w" : tensor<64xf32>
  %a = lpu.mul %w, %x : (tensor<64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %s = lpu.select_rows %a : tensor<?x64xf32>
  func.return %s : tensor<?x64xf32>
}

// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @above_the_final_norm(%q: tensor<?x4x16xf32>) -> tensor<?x2x48xf32> {
// CHECK-NEXT:     %k = lpu.attention %q, %q, %q slot 0 scale 1.000000e+00 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %x = lpu.reshape %k : (tensor<?x4x16xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %hw = lpu.weight "lm_head.weight" : tensor<96x64xf16>
// CHECK-NEXT:     %0 = lpu.select_rows %x : tensor<?x64xf32>
// CHECK-NEXT:     %n = lpu.rms_norm %0 epsilon 1.000000e-05 : tensor<?x64xf32>
// CHECK-NEXT:     %l = lpu.linear %n by %hw : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32>
// CHECK-NEXT:     %r = lpu.reshape %l : (tensor<?x96xf32>) -> tensor<?x2x48xf32>
// CHECK-NEXT:     func.return %r : tensor<?x2x48xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @not_into_a_layer(%q: tensor<?x4x16xf32>) -> tensor<?x96xf32> {
// CHECK-NEXT:     %k = lpu.attention %q, %q, %q slot 0 scale 1.000000e+00 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %x = lpu.reshape %k : (tensor<?x4x16xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %hw = lpu.weight "lm_head.weight" : tensor<96x64xf16>
// CHECK-NEXT:     %n = lpu.rms_norm %x epsilon 1.000000e-05 : tensor<?x64xf32>
// CHECK-NEXT:     %0 = lpu.select_rows %n : tensor<?x64xf32>
// CHECK-NEXT:     %l = lpu.linear %0 by %hw : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32>
// CHECK-NEXT:     func.return %l : tensor<?x96xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @other_users(%x: tensor<?x64xf32>) -> (tensor<?x96xf32>, tensor<?x96xf32>) {
// CHECK-NEXT:     %hw = lpu.weight "lm_head.weight" : tensor<96x64xf16>
// CHECK-NEXT:     %l = lpu.linear %x by %hw : tensor<?x64xf32>, tensor<96x64xf16> -> tensor<?x96xf32>
// CHECK-NEXT:     %0 = lpu.select_rows %l : tensor<?x96xf32>
// CHECK-NEXT:     %e = lpu.silu %0 : tensor<?x96xf32>
// CHECK-NEXT:     func.return %e, %l : tensor<?x96xf32>, tensor<?x96xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @two_selections_for_one(%x: tensor<?x64xf32>, %y: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %a = lpu.add %x, %y : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %s = lpu.select_rows %a : tensor<?x64xf32>
// CHECK-NEXT:     func.return %s : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
//
// CHECK:      builtin.module {
// CHECK-NEXT:   func.func @static_operands_stay(%x: tensor<?x64xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %w = lpu.weight "w" : tensor<64xf32>
// CHECK-NEXT:     %0 = lpu.select_rows %x : tensor<?x64xf32>
// CHECK-NEXT:     %a = lpu.mul %w, %0 : (tensor<64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     func.return %a : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK-NEXT: }
