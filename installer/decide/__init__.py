"""Facts and answers become a plan. Pure: no file, no process, no clock, no random source."""
