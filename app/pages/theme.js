// Dark or light: as the system says, until somebody says otherwise.

const THEME = "tallygate.theme";
const systemIsDark = matchMedia("(prefers-color-scheme: dark)");

function chosenTheme() {
  try {
    return localStorage.getItem(THEME);
  } catch {
    return null;
  }
}

function paint() {
  const theme = chosenTheme() ?? (systemIsDark.matches ? "dark" : "light");
  document.documentElement.dataset.theme = theme;
  const other = theme === "dark" ? "light" : "dark";
  put("theme", theme === "dark" ? "Light" : "Dark");
  byId("theme").setAttribute("aria-label", `Switch to the ${other} theme`);
}

function switchTheme() {
  const dark = document.documentElement.dataset.theme === "dark";
  try {
    localStorage.setItem(THEME, dark ? "light" : "dark");
  } catch {
    document.documentElement.dataset.theme = dark ? "light" : "dark";
    return;
  }
  paint();
}

systemIsDark.addEventListener("change", paint);
byId("theme").addEventListener("click", switchTheme);
paint();
