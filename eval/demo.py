"""The page under its earlier name: `python -m eval.demo` is `python -m eval.page`."""

from eval.page.__main__ import main

if __name__ == "__main__":
    main()
