"""A profile is grouped by what its kernels do, adds up to the whole, and names what to look at next."""

from __future__ import annotations

import pytest

from bench.bottleneck import IDLE, Kernel, group_of, lines, summarise


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("nvjet_tst_192x192_64x4_2x1_v_bz_coopB_TNT", "matmul"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32_tn_n_tilesize128x128x64", "matmul"),
        ("void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu>", "matmul"),
        ("aten::mm", "matmul"),
        ("void pytorch_flash::flash_bwd_dq_dk_dv_loop_seqk_parallel_kernel<...>", "attention"),
        ("fmha_cutlassF_bf16_aligned_64x64_rf_sm80", "attention"),
        ("triton_tem_fused_flex_attention_backward_3", "attention"),
        ("void kDequantizeBlockwise<__nv_bfloat16, 512, 64, 8, 2>", "dequantise"),
        ("bitsandbytes::dequantize_4bit", "dequantise"),
        (
            "void at::native::vectorized_elementwise_kernel<4, CUDAFunctor_add<float>>",
            "norm and elementwise",
        ),
        ("triton_red_fused__to_copy_mean_mul_pow_rsqrt_2", "norm and elementwise"),
        ("void at::native::(anonymous namespace)::multi_tensor_apply_kernel<FusedAdamMathFunctor>", "optimizer"),
        ("kOptimizer32bit2State<float, 0>", "optimizer"),
        ("Memcpy DtoD (Device -> Device)", "copies"),
        ("aten::copy_", "copies"),
        ("some_new_kernel", "other"),
    ],
)
def test_a_kernel_is_known_by_its_name(name: str, group: str) -> None:
    assert group_of(name) == group


def test_shares_add_up_with_what_is_left_over() -> None:
    kernels = [Kernel("nvjet", 0.5, 10), Kernel("flash_fwd", 0.2, 5), Kernel("flash_bwd", 0.1, 5)]
    found = summarise(kernels, seconds=1.0, steps=3)
    assert found["groups"] == pytest.approx({"matmul": 0.5, "attention": 0.3, IDLE: 0.2})
    assert next(iter(found["groups"])) == "matmul"
    assert [item["name"] for item in found["top"]] == ["nvjet", "flash_fwd", "flash_bwd"]
    assert found["next"].startswith("matmul: ")


def test_a_device_that_waits_is_told_of() -> None:
    found = summarise([Kernel("nvjet", 0.1, 10)], seconds=1.0, steps=3)
    assert found["next"].startswith("idle: the device waits for Python")


def test_kernels_side_by_side_leave_nothing_idle() -> None:
    found = summarise([Kernel("nvjet", 0.8, 1), Kernel("Memcpy HtoD", 0.8, 1)], seconds=1.0, steps=1)
    assert IDLE not in found["groups"]
    assert sum(found["groups"].values()) == pytest.approx(1.0)


def test_a_profile_is_written_for_a_person() -> None:
    profile = {"variant": "kit", "workload": "full", **summarise([Kernel("nvjet", 0.9, 10)], 1.5, 3)}
    text = "\n".join(lines(profile))
    assert "profile of kit, full rows: 500 ms a step" in text
    assert "60.0%  matmul" in text
    assert text.splitlines()[-1].startswith("next bottleneck: matmul")
