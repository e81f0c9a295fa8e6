"""Lets trio start under Wine 8.0; copied into the Windows Python as sitecustomize.py and used nowhere else.

trio asks once for SIO_BSP_HANDLE_SELECT, to notice network filters that Wine does not have, and Wine answers that it
does not know the question (WinError 10045). Here trio gets the base handle at once, as it would without any filter.
"""

import importlib.machinery
import sys

TRIO_WINDOWS_IO = "trio._core._io_windows"


class TrioUnderWine:
    """Finds trio's module as ever, and changes one function of it after it was loaded."""

    def find_spec(self, name, path=None, target=None):
        if name != TRIO_WINDOWS_IO:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        load = spec.loader.exec_module

        def load_and_change(module):
            load(module)
            base_handle = module._get_underlying_socket
            module._get_underlying_socket = lambda sock, *, which=None: base_handle(sock)

        spec.loader.exec_module = load_and_change
        return spec


sys.meta_path.insert(0, TrioUnderWine())
