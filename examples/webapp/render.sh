# render.sh PAGES LAYOUT CACHE SITE: every PAGES/NAME.txt as SITE/NAME.html, unchanged ones from CACHE.
set -eu
pages=$1 layout=$2 cache=$3 site=$4
mkdir -p "$cache" "$site"

body() {
    awk '
        function text(line) { gsub(/&/, "\\&amp;", line); gsub(/</, "\\&lt;", line); return line }
        function end() { if (open != "") print "</" open ">"; open = "" }
        function begin(tag) { if (open != tag) { end(); print "<" tag ">"; open = tag } }
        /^# /  { end(); print "<h1>" text(substr($0, 3)) "</h1>"; next }
        /^- /  { begin("ul"); print "<li>" text(substr($0, 3)) "</li>"; next }
        /^ *$/ { end(); next }
               { begin("p"); print text($0) }
        END    { end() }
    ' "$1"
}

for page in "$pages"/*.txt; do
    name=$(basename "$page" .txt)
    key=$(cat "$page" "$layout" "$0" | sha256sum | cut -d ' ' -f 1)
    if [ ! -f "$cache/$key" ]; then
        echo "rendering $name"
        title=$(sed -n 's/^# //p' "$page" | head -n 1)
        body "$page" > "$cache/$key.body"
        sed -e "s/@TITLE@/$title/" -e "/@BODY@/{r $cache/$key.body
d;}" "$layout" > "$cache/$key.new"
        mv "$cache/$key.new" "$cache/$key"
    else
        echo "cached    $name"
    fi
    cp "$cache/$key" "$site/$name.html"
done
