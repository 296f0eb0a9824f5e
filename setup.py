from setuptools import find_packages, setup

ROOTS = ("kernels", "layers", "archs", "experiments")
setup(
    package_dir={f"subquad.{root}": root for root in ROOTS},
    packages=[f"subquad.{p}" for p in find_packages(include=[g for r in ROOTS for g in (r, f"{r}.*")])],
    package_data={"subquad.experiments": ["records/*.json"]},
)
