// What every page has: ticking times, copy buttons, the keyboard and its help.

import "./clock.js";
import "./keys.js";
