# What the plots have in common; read before each of them
set terminal svg noenhanced size 960,480 font "sans-serif,13" background rgb "white"
set datafile separator ","
set datafile missing NaN
set style fill solid 0.85
set boxwidth 0.8 relative
set grid ytics lc rgb "#dddddd"
set border 3
set tics nomirror
ours = 0x1b6ca8
theirs = 0xc8553d
others = 0x999999
color(name) = strstrt(name, "lsn_") || strstrt(name, "library") ? ours : strstrt(name, "WAIT FOR") ? theirs : others
