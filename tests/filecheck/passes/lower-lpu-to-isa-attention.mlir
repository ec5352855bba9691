// RUN: hyperdex-opt %s -p lower-lpu-to-isa | filecheck %s
// Slopes that all layers share, a layer's own sinks: a register for each goes from head to head; without them, none.

builtin.module attributes {"lpu.target" = "u55c", "lpu.max_length" = 100 : i64, "lpu.matrix_type" = "f16"} {
func.func @main(%ids: tensor<?xi64>, %pos: tensor<?xi64>) -> tensor<?x128xf32> {
  %e = lpu.weight "embed.weight" : tensor<128x64xf16>
  %x = lpu.embedding %e at %ids : (tensor<128x64xf16>, tensor<?xi64>) -> tensor<?x64xf32>
  %y = lpu.layer @layers.kind0(%x) : (tensor<?x64xf32>) -> tensor<?x64xf32>
  %z = lpu.layer @layers.kind1(%y) : (tensor<?x64xf32>) -> tensor<?x64xf32>
  %s = lpu.select_rows %z : tensor<?x64xf32>
  %l = lpu.linear %s by %e : tensor<?x64xf32>, tensor<128x64xf16> -> tensor<?x128xf32>
  func.return %l : tensor<?x128xf32>
}
func.func @layers.kind0(%h: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %slopes = lpu.weight "slopes" : tensor<4xf32>
  %sinks = lpu.weight "layers.*.sinks" : tensor<4xf32>
  %q = lpu.reshape %h : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
  %a = lpu.attention %q, %q, %q slot 0 scale 2.5e-01 slopes %slopes : tensor<4xf32> bf16_bias sinks %sinks : tensor<4xf32> : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  %o = lpu.reshape %a : (tensor<?x4x16xf32>) -> tensor<?x64xf32>
  %y = lpu.add %h, %o : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
func.func @layers.kind1(%h: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %q = lpu.reshape %h : (tensor<?x64xf32>) -> tensor<?x4x16xf32>
  %a = lpu.attention %q, %q, %q slot 0 scale 2.5e-01 : (tensor<?x4x16xf32>, tensor<?x4x16xf32>, tensor<?x4x16xf32>) -> tensor<?x4x16xf32>
  %o = lpu.reshape %a : (tensor<?x4x16xf32>) -> tensor<?x64xf32>
  %y = lpu.add %h, %o : (tensor<?x64xf32>, tensor<?x64xf32>) -> tensor<?x64xf32>
  func.return %y : tensor<?x64xf32>
}
}

// CHECK:        func.func @layers.kind0(%h: !isa.lmu<tokens x 64>) {
// CHECK-NEXT:     isa.store_key cache=hbm[kv_base] pitch=14336 src=%h heads=4 size=16 limit=100 type=f16 rows=tokens
// CHECK-NEXT:     isa.store_value cache=hbm[57344 + kv_base] pitch=4096 src=%h heads=4 size=16 limit=100 type=f16 rows=tokens
// CHECK-NEXT:     %a = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     %scores = isa.buffer : !isa.lmu<tokens x 128>
// CHECK-NEXT:     isa.set dst=r9 value=0
// CHECK-NEXT:     isa.set dst=r10 value=0
// CHECK-NEXT:     isa.add dst=r29 a=zero b=zero value=16384
// CHECK-NEXT:     isa.add dst=r30 a=param_base b=zero
// CHECK-NEXT:     isa.add dst=r11 a=kv_base b=zero
// CHECK-NEXT:     isa.add dst=r12 a=kv_base b=zero
// CHECK-NEXT:     isa.repeat 4 {
// CHECK-NEXT:       isa.scores dst=%scores query=%h[r9] cache=hbm[r11] size=16 scale=0.25 type=f16 rows=tokens slope=hbm[r29] bf16_bias=1
// CHECK-NEXT:       isa.softmax dst=%scores src=%scores rows=tokens sink=hbm[r30]
// CHECK-NEXT:       isa.values dst=%a[r10] src=%scores cache=hbm[57344 + r12] size=16 limit=100 type=f16 rows=tokens
// CHECK-NEXT:       isa.add dst=r9 a=r9 b=zero value=16
// CHECK-NEXT:       isa.add dst=r10 a=r10 b=zero value=16
// CHECK-NEXT:       isa.add dst=r29 a=r29 b=zero value=4
// CHECK-NEXT:       isa.add dst=r30 a=r30 b=zero value=4
// CHECK-NEXT:       isa.add dst=r11 a=r11 b=zero value=14336
// CHECK-NEXT:       isa.add dst=r12 a=r12 b=zero value=4096
// CHECK-NEXT:     }
// CHECK-NEXT:     isa.binary function=add dst=%h a=%h b=%a columns=64 rows=tokens
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
// CHECK-NEXT:   func.func @layers.kind1(%h: !isa.lmu<tokens x 64>) {
// CHECK-NEXT:     isa.store_key cache=hbm[kv_base] pitch=14336 src=%h heads=4 size=16 limit=100 type=f16 rows=tokens
// CHECK-NEXT:     isa.store_value cache=hbm[57344 + kv_base] pitch=4096 src=%h heads=4 size=16 limit=100 type=f16 rows=tokens
// CHECK-NEXT:     %a = isa.buffer : !isa.lmu<tokens x 64>
// CHECK-NEXT:     %scores = isa.buffer : !isa.lmu<tokens x 128>
// CHECK-NEXT:     isa.set dst=r9 value=0
// CHECK-NEXT:     isa.set dst=r10 value=0
// CHECK-NEXT:     isa.add dst=r11 a=kv_base b=zero
// CHECK-NEXT:     isa.add dst=r12 a=kv_base b=zero
// CHECK-NEXT:     isa.repeat 4 {
// CHECK-NEXT:       isa.scores dst=%scores query=%h[r9] cache=hbm[r11] size=16 scale=0.25 type=f16 rows=tokens
// CHECK-NEXT:       isa.softmax dst=%scores src=%scores rows=tokens
// CHECK-NEXT:       isa.values dst=%a[r10] src=%scores cache=hbm[57344 + r12] size=16 limit=100 type=f16 rows=tokens
// CHECK-NEXT:       isa.add dst=r9 a=r9 b=zero value=16
// CHECK-NEXT:       isa.add dst=r10 a=r10 b=zero value=16
// CHECK-NEXT:       isa.add dst=r11 a=r11 b=zero value=14336
// CHECK-NEXT:       isa.add dst=r12 a=r12 b=zero value=4096
// CHECK-NEXT:     }
// CHECK-NEXT:     isa.binary function=add dst=%h a=%h b=%a columns=64 rows=tokens
// CHECK-NEXT:     func.return
// CHECK-NEXT:   }
