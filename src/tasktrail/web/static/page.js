import { readOut } from "./charts.js";
import { follow } from "./live.js";
import { select } from "./selection.js";
import { switchTheme } from "./switch.js";

switchTheme(document.getElementById("theme"));
readOut(document);
const sayChosen = select(document.getElementById("rows"));
follow(document.body, sayChosen);
