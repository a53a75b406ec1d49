"""`python -m deeplab2_kmax` is the console command `deeplab2-kmax`, for where its script is not on the PATH."""

from deeplab2_kmax.cli.main import main

if __name__ == "__main__":
    main(prog="python -m deeplab2_kmax")
