# Calls a second of one session
set output "replayed.svg"
set title "Already replayed: calls a second of one session (median, quartiles)"
set ylabel "calls a second"
set yrange [0:*]
unset key
set boxwidth 0.5
set xtics rotate by -20 font ",11"
set rmargin 18
set bmargin 6
plot 'replayed.csv' using 0:(1e6 / $4):(color(strcol(2))):xtic(2) every ::1 with boxes lc rgb variable, \
	'' using 0:(1e6 / $4):(1e6 / $6):(1e6 / $5) every ::1 with yerrorbars pt -1 lw 2 lc rgb "black"
