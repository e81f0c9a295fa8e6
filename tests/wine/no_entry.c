/* python3.dll: only forwards names to python311.dll; this is the entry point that every DLL must have. */
int __stdcall DllMainCRTStartup(void *module, unsigned reason, void *reserved) { return 1; }
