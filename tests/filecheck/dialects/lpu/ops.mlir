// RUN: hyperdex-opt %s | hyperdex-opt | filecheck %s
// RUN: hyperdex-opt %s --print-op-generic | hyperdex-opt | filecheck %s
// Every operation, in custom and in generic form.

func.func @sources() -> (tensor<64x32xf16>, tensor<3x64xf32>, tensor<f32>) {
  %w = lpu.weight "model.layers.*.q.weight", "model.layers.*.k.weight" : tensor<64x32xf16>
  %t = lpu.weight "model.table" : tensor<3x64xf32>
  %c = lpu.constant 1.000000e-05 : tensor<f32>
  func.return %w, %t, %c : tensor<64x32xf16>, tensor<3x64xf32>, tensor<f32>
}

func.func @elementwise(%x: tensor<?x64xf32>, %y: tensor<?x1xf32>, %w: tensor<64xf32>) {
  %a = lpu.add %x, %y : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
  %b = lpu.sub %w, %a : (tensor<64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %c = lpu.mul %b, %b : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %d = lpu.div %c, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %e = lpu.max %d, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %f = lpu.min %e, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  %g = lpu.neg %f : tensor<?x64xf32>
  %h = lpu.exp %g : tensor<?x64xf32>
  %i = lpu.tanh %h : tensor<?x64xf32>
  %j = lpu.erf %i : tensor<?x64xf32>
  %k = lpu.sqrt %j : tensor<?x64xf32>
  %l = lpu.rsqrt %k : tensor<?x64xf32>
  %m = lpu.relu %l : tensor<?x64xf32>
  %n = lpu.sigmoid %m : tensor<?x64xf32>
  %o = lpu.silu %n : tensor<?x64xf32>
  %p = lpu.gelu %o : tensor<?x64xf32>
  %q = lpu.gelu_tanh %p : tensor<?x64xf32>
  %r = lpu.sum %q : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %s = lpu.mean %q : (tensor<?x64xf32>) -> tensor<?x1xf32>
  %t = lpu.row_max %q : (tensor<?x64xf32>) -> tensor<?x1xf32>
  func.return
}

func.func @shapes(%x: tensor<1x?x64xf32>) -> tensor<?x4x16xf32> {
  %a = lpu.reshape %x : (tensor<1x?x64xf32>) -> tensor<1x?x4x16xf32>
  %b = lpu.transpose %a [0, 2, 1, 3] : (tensor<1x?x4x16xf32>) -> tensor<1x4x?x16xf32>
  %c = lpu.slice %b dim 3 from 0 to 8 : (tensor<1x4x?x16xf32>) -> tensor<1x4x?x8xf32>
  %d = lpu.slice %b dim 3 from 1 to 16 {step = 2 : i64} : (tensor<1x4x?x16xf32>) -> tensor<1x4x?x8xf32>
  %e = lpu.concat %c, %d dim 3 : (tensor<1x4x?x8xf32>, tensor<1x4x?x8xf32>) -> tensor<1x4x?x16xf32>
  %f = lpu.broadcast %e : (tensor<1x4x?x16xf32>) -> tensor<1x4x?x16xf32>
  %g = lpu.reshape %a : (tensor<1x?x4x16xf32>) -> tensor<?x4x16xf32>
  %h = lpu.select_rows %g : tensor<?x4x16xf32>
  func.return %h : tensor<?x4x16xf32>
}

func.func @model(%ids: tensor<?xi64>, %pos: tensor<?xi64>, %w: tensor<128x64xf16>, %b: tensor<128xf32>, %n: tensor<64xf32>, %t: tensor<99x2x16xf32>, %r: tensor<?x128xf32>) {
  %x = lpu.embedding %w at %ids : (tensor<128x64xf16>, tensor<?xi64>) -> tensor<?x64xf32>
  %y = lpu.embedding %w at %pos {offset = 2 : i64} : (tensor<128x64xf16>, tensor<?xi64>) -> tensor<?x64xf32>
  %cos, %sin = lpu.rotary_table %t at %pos : (tensor<99x2x16xf32>, tensor<?xi64>) -> (tensor<?x16xf32>, tensor<?x16xf32>)
  %a = lpu.rms_norm %x weight %n : tensor<64xf32> epsilon 1.000000e-06 : tensor<?x64xf32>
  %c = lpu.rms_norm %a epsilon 1.000000e-06 : tensor<?x64xf32>
  %d = lpu.layer_norm %c weight %n : tensor<64xf32> bias %n : tensor<64xf32> epsilon 1.000000e-05 : tensor<?x64xf32>
  %e = lpu.linear %d by %w : tensor<?x64xf32>, tensor<128x64xf16> -> tensor<?x128xf32>
  %f = lpu.linear %d by %w bias %b : tensor<128xf32> scale 1.250000e-01 softcap 3.000000e+01 then gelu_tanh times %e plus %r : tensor<?x64xf32>, tensor<128x64xf16> -> tensor<?x128xf32>
  %h = lpu.reshape %d : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
  %q = lpu.rotary %h cos %cos sin %sin style half : (tensor<?x4x16xf32>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x4x16xf32>
  %k = lpu.rotary %h cos %cos sin %sin style interleaved : (tensor<?x4x16xf32>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x4x16xf32>
  %1 = lpu.attention %q, %k, %h slot 0 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  %2 = lpu.attention %q, %k, %h slot 1 scale 2.500000e-01 window 512 softcap 5.000000e+01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  func.return
}

func.func @control(%x: tensor<?x64xf32>, %c: tensor<?x16xf32>) -> tensor<?x64xf32> {
  %h = lpu.repeat 30 (%i = %x : tensor<?x64xf32>) {
    %o = lpu.layer @layer(%i, %c) : (tensor<?x64xf32>, tensor<?x16xf32>) -> tensor<?x64xf32>
    lpu.yield %o : tensor<?x64xf32>
  }
  %l = lpu.layers "model.layers.order" [0, 1, 1, 0, 0] @layer, @other (%h : tensor<?x64xf32>, %c : tensor<?x16xf32>) attributes {note}
  func.return %l : tensor<?x64xf32>
}

func.func @layer(%x: tensor<?x64xf32>, %c: tensor<?x16xf32>) -> tensor<?x64xf32> {
  %s = lpu.layer_constant "model.layers.*.constant0" [5.0e-01, -0.0, 1.0e-30, 3.0, 0.1] : tensor<f32>
  %y = lpu.mul %x, %s : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}

func.func @other(%x: tensor<?x64xf32>, %c: tensor<?x16xf32>) -> tensor<?x64xf32> {
  func.return %x : tensor<?x64xf32>
}

// CHECK:        func.func @sources() -> (tensor<64x32xf16>, tensor<3x64xf32>, tensor<f32>) {
// CHECK-NEXT:     %w = lpu.weight "q.weight", "k.weight" in "model.layers.*" : tensor<64x32xf16>
// CHECK-NEXT:     %t = lpu.weight "model.table" : tensor<3x64xf32>
// CHECK-NEXT:     %c = lpu.constant 1.000000e-05 : tensor<f32>
// CHECK-NEXT:     func.return %w, %t, %c : tensor<64x32xf16>, tensor<3x64xf32>, tensor<f32>
// CHECK-NEXT:   }
// CHECK:        func.func @elementwise(%x: tensor<?x64xf32>, %y: tensor<?x1xf32>, %w: tensor<64xf32>) {
// CHECK-NEXT:     %a = lpu.add %x, %y : (tensor<?x64xf32>, tensor<?x1xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %b = lpu.sub %w, %a : (tensor<64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %c = lpu.mul %b, %b : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %d = lpu.div %c, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %e = lpu.max %d, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %f = lpu.min %e, %x : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:     %g = lpu.neg %f : tensor<?x64xf32>
// CHECK-NEXT:     %h = lpu.exp %g : tensor<?x64xf32>
// CHECK-NEXT:     %i = lpu.tanh %h : tensor<?x64xf32>
// CHECK-NEXT:     %j = lpu.erf %i : tensor<?x64xf32>
// CHECK-NEXT:     %k = lpu.sqrt %j : tensor<?x64xf32>
// CHECK-NEXT:     %l = lpu.rsqrt %k : tensor<?x64xf32>
// CHECK-NEXT:     %m = lpu.relu %l : tensor<?x64xf32>
// CHECK-NEXT:     %n = lpu.sigmoid %m : tensor<?x64xf32>
// CHECK-NEXT:     %o = lpu.silu %n : tensor<?x64xf32>
// CHECK-NEXT:     %p = lpu.gelu %o : tensor<?x64xf32>
// CHECK-NEXT:     %q = lpu.gelu_tanh %p : tensor<?x64xf32>
// CHECK-NEXT:     %r = lpu.sum %q : (tensor<?x64xf32>) -> tensor<?x1xf32>
// CHECK-NEXT:     %s = lpu.mean %q : (tensor<?x64xf32>) -> tensor<?x1xf32>
// CHECK-NEXT:     %t = lpu.row_max %q : (tensor<?x64xf32>) -> tensor<?x1xf32>
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK:        func.func @shapes(%x: tensor<1x?x64xf32>) -> tensor<?x4x16xf32> {
// CHECK-NEXT:     %a = lpu.reshape %x : (tensor<1x?x64xf32>) -> tensor<1x?x4x16xf32>
// CHECK-NEXT:     %b = lpu.transpose %a [0, 2, 1, 3] : (tensor<1x?x4x16xf32>) -> tensor<1x4x?x16xf32>
// CHECK-NEXT:     %c = lpu.slice %b dim 3 from 0 to 8 : (tensor<1x4x?x16xf32>) -> tensor<1x4x?x8xf32>
// CHECK-NEXT:     %d = lpu.slice %b dim 3 from 1 to 16 {step = 2 : i64} : (tensor<1x4x?x16xf32>) -> tensor<1x4x?x8xf32>
// CHECK-NEXT:     %e = lpu.concat %c, %d dim 3 : (tensor<1x4x?x8xf32>, tensor<1x4x?x8xf32>) -> tensor<1x4x?x16xf32>
// CHECK-NEXT:     %f = lpu.broadcast %e : (tensor<1x4x?x16xf32>) -> tensor<1x4x?x16xf32>
// CHECK-NEXT:     %g = lpu.reshape %a : (tensor<1x?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %h = lpu.select_rows %g : tensor<?x4x16xf32>
// CHECK-NEXT:     func.return %h : tensor<?x4x16xf32>
// CHECK-NEXT:   }
// CHECK:        func.func @model(%ids: tensor<?xi64>, %pos: tensor<?xi64>, %w: tensor<128x64xf16>, %b: tensor<128xf32>, %n: tensor<64xf32>, %t: tensor<99x2x16xf32>, %r: tensor<?x128xf32>) {
// CHECK-NEXT:     %x = lpu.embedding %w at %ids : (tensor<128x64xf16>, tensor<?xi64>) -> tensor<?x64xf32>
// CHECK-NEXT:     %y = lpu.embedding %w at %pos {offset = 2 : i64} : (tensor<128x64xf16>, tensor<?xi64>) -> tensor<?x64xf32>
// CHECK-NEXT:     %cos, %sin = lpu.rotary_table %t at %pos : (tensor<99x2x16xf32>, tensor<?xi64>) -> (tensor<?x16xf32>, tensor<?x16xf32>)
// CHECK-NEXT:     %a = lpu.rms_norm %x weight %n : tensor<64xf32> epsilon 1.000000e-06 : tensor<?x64xf32>
// CHECK-NEXT:     %c = lpu.rms_norm %a epsilon 1.000000e-06 : tensor<?x64xf32>
// CHECK-NEXT:     %d = lpu.layer_norm %c weight %n : tensor<64xf32> bias %n : tensor<64xf32> epsilon 1.000000e-05 : tensor<?x64xf32>
// CHECK-NEXT:     %e = lpu.linear %d by %w : tensor<?x64xf32>, tensor<128x64xf16> -> tensor<?x128xf32>
// CHECK-NEXT:     %f = lpu.linear %d by %w bias %b : tensor<128xf32> scale 1.250000e-01 softcap 3.000000e+01 then gelu_tanh times %e plus %r : tensor<?x64xf32>, tensor<128x64xf16> -> tensor<?x128xf32>
// CHECK-NEXT:     %h = lpu.reshape %d : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %q = lpu.rotary %h cos %cos sin %sin style half : (tensor<?x4x16xf32>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %k = lpu.rotary %h cos %cos sin %sin style interleaved : (tensor<?x4x16xf32>, tensor<?x16xf32>, tensor<?x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %0 = lpu.attention %q, %k, %h slot 0 scale 2.500000e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     %1 = lpu.attention %q, %k, %h slot 1 scale 2.500000e-01 window 512 softcap 5.000000e+01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK:        func.func @control(%x: tensor<?x64xf32>, %c: tensor<?x16xf32>) -> tensor<?x64xf32> {
// CHECK-NEXT:     %h = lpu.repeat 30 (%i = %x : tensor<?x64xf32>) {
// CHECK-NEXT:       %o = lpu.layer @layer(%i, %c) : (tensor<?x64xf32>, tensor<?x16xf32>) -> tensor<?x64xf32>
// CHECK-NEXT:       lpu.yield %o : tensor<?x64xf32>
// CHECK-NEXT:     }
// CHECK-NEXT:     %l = lpu.layers "model.layers.order" [0, 1, 1, 0, 0] @layer, @other (%h : tensor<?x64xf32>, %c : tensor<?x16xf32>) attributes {note}
// CHECK-NEXT:     func.return %l : tensor<?x64xf32>
// CHECK-NEXT:   }
// CHECK:          %s = lpu.layer_constant "model.layers.*.constant0" [0.5, -0.0, 1.0e-30, 3.0, 0.1] : tensor<f32>
// CHECK-NEXT:     %y = lpu.mul %x, %s : (tensor<?x64xf32>, tensor<f32>) -> tensor<?x64xf32>
