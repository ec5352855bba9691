"""The native executor: programs run by machine code that is generated for this computer's vector instructions."""
